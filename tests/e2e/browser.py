"""One visit to the page: browser.py '{"step": ..., "url": ..., "chromium": ..., "folder": ...}' prints what was seen as JSON.
Needs Playwright; check_browser.py starts it and judges. Whatever the step, a message on the console, an exception in the page, a
violated policy or a request to another origin is a failure. The page's policy forbids eval, so nothing here waits with one:
observers are put in through the debugger's channel."""
import json
import os
import sys

from playwright.sync_api import sync_playwright

# Everything that shows while a request runs, in the order in which it showed.
WATCH = """() => {
  window.seen = {texts: [], previews: [], bars: [], left: []};
  const add = (list, value) => { if (value && list[list.length - 1] !== value) list.push(value); };
  new MutationObserver(() => {
    const c = document.querySelector('article');
    if (!c) return;
    add(seen.texts, c.querySelector('.answer').textContent);
    if (!c.classList.contains('busy')) return;
    add(seen.previews, c.querySelector('.frame img[alt*="so far"]')?.src);
    if (c.querySelector('progress').hasAttribute('value') && c.querySelector('.state').textContent.startsWith('Drawing'))
      add(seen.bars, c.querySelector('progress').value);
    add(seen.left, c.querySelector('.state :last-child').textContent);
  }).observe(document.getElementById('results'), {subtree: true, childList: true, characterData: true, attributes: true});
}"""
# Relative luminance and contrast as WCAG 2 defines them; a transparent background is that of the parent.
LOOKS = """() => {
  const rgb = s => s.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const back = e => { const c = rgb(getComputedStyle(e).backgroundColor); return c.length > 3 && c[3] === 0 ? back(e.parentElement) : c; };
  const contrast = {};
  for (const q of ['#facts', '#health', '#notice', '#notice strong', '#tasks span', '#tasks :checked + span', '#drop b', '#drop small',
                   '#prompt', '#prompt-label', '#examples button', '#send', 'summary', '#keys', 'article h3', 'article h3 span',
                   '.answer', '.meta', 'footer', 'figcaption', 'figcaption b', 'pre', '.error span', '.error strong', '.error small', 'article button']) {
    const e = document.querySelector(q), a = light(rgb(getComputedStyle(e).color)), b = light(back(e));
    contrast[q] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }
  return {paper: light(rgb(getComputedStyle(document.body).backgroundColor)), contrast};
}"""
FOCUS = "() => { const e = document.activeElement; return e.name || e.id || e.tagName.toLowerCase(); }"
# A control is named by its label, its aria-label or its text.
UNLABELLED = """() => [...document.querySelectorAll('input, textarea, button, [tabindex]')].filter(e =>
  !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).map(e => e.outerHTML.slice(0, 80))"""


def open_page(page, job):
    page.goto(job["url"])
    page.locator("#health[data-state=ok]").wait_for()
    page.evaluate(WATCH)


def ended(page, n=1):
    page.locator("article:not(.busy)").nth(n - 1).wait_for()


def in_folder(job, name):
    return os.path.join(job["folder"], job[name])


def ask(page, job):
    page.set_input_files("#files", in_folder(job, "file"))
    page.locator("#thumbs img").wait_for()
    page.fill("#prompt", job["question"])
    page.click("#send")
    ended(page)
    return dict(page.evaluate("seen"), answer=page.inner_text(".answer"), curl=page.text_content("article pre"))


def draw(page, job):
    page.locator("#tasks span").nth(1).click()
    page.fill("#prompt", job["prompt"])
    page.click("#settings summary")
    page.fill("#seed", job["seed"])
    page.click("#send")
    ended(page)
    seen = page.evaluate("seen")
    page.locator(".frame img[alt^='Synthetic image:']").wait_for()
    with page.expect_download() as download:
        page.click("text=Download")
    name = download.value.suggested_filename
    download.value.save_as(os.path.join(job["folder"], name))
    image, strip = page.locator(".frame img").bounding_box(), page.locator("figcaption b").bounding_box()
    return dict(seen, download=name, strip=page.inner_text("figcaption b"), strip_top=strip["y"],
                image_bottom=image["y"] + image["height"],
                natural=page.evaluate("[document.querySelector('.frame img').naturalWidth, document.querySelector('.frame img').naturalHeight]"))


def keyboard(page, job):
    order = []
    # Asked for long before: that the chooser is to be told of reaches the browser beside the keys, not before them.
    page.on("filechooser", lambda chooser: chooser.set_files(in_folder(job, "file")))
    for _ in range(12):
        page.keyboard.press("Tab")
        order.append(page.evaluate(FOCUS))
        if order[-1] == "files":
            page.keyboard.press("Space")
            page.locator("#thumbs img").wait_for()
        if order[-1] == "prompt":
            page.keyboard.type(job["question"])
        if order[-1] == "send":
            break
    unlabelled = page.evaluate(UNLABELLED)
    page.keyboard.press("Enter")
    ended(page)
    answer = page.inner_text(".answer")
    while page.evaluate(FOCUS) != "task":
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowRight")
    while page.evaluate(FOCUS) != "prompt":
        page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("Draw a chest X-ray.")
    page.keyboard.press("Control+Enter")
    page.locator("article.busy .frame img").wait_for()
    page.keyboard.press("Escape")
    ended(page, 2)
    return {"order": order, "unlabelled": unlabelled, "answer": answer, "stopped": page.inner_text("article .error"),
            "focus": page.evaluate(FOCUS)}


def send(page, text):
    """The error that comes of it."""
    n = page.locator("article").count()
    page.fill("#prompt", text)
    page.keyboard.press("Control+Enter")
    page.locator("article:not(.busy)").nth(n).wait_for()
    return page.locator("article").first.locator(".error").inner_text()


def errors(page, job):
    seen = {}
    page.set_input_files("#files", in_folder(job, "text"))
    page.locator("#files-error:not(:empty)").wait_for()
    seen["text"] = page.inner_text("#files-error")
    page.set_input_files("#files", in_folder(job, "broken"))  # chromium shows what it has of it
    page.locator("#thumbs img").wait_for()
    seen["broken"] = send(page, "Hello?")
    page.click("#thumbs button")
    page.click("#settings summary")
    page.fill("#temperature", "9")
    seen["wrong"] = send(page, "Hello?")
    seen["focused"] = page.evaluate(FOCUS)
    page.fill("#temperature", "")
    page.context.set_offline(True)
    seen["offline"] = send(page, "Hello?")
    seen["again"] = page.locator("article").first.locator(".error button").count()
    page.context.set_offline(False)
    line = '{"type":"queued","id":"x","task":"comprehension","position":1,"prompt_tokens":1}\n'
    page.route("**/v1/vqa", lambda route: route.fulfill(status=200, content_type="application/x-ndjson", body=line))
    seen["cut"] = send(page, "Hello?")
    page.unroute("**/v1/vqa")
    full = {"error": {"message": "queue full", "type": "overloaded_error", "code": "queue_full", "param": None}}
    page.route("**/v1/vqa", lambda route: route.fulfill(status=503, headers={"Retry-After": "7"}, body=json.dumps(full)))
    seen["busy"] = send(page, "Hello?")
    return seen


def key(page, job):
    page.locator("#key-field:not([hidden])").wait_for()
    seen = {"missing": send(page, job["question"])}
    page.fill("#key", "wrong")
    seen["wrong"] = send(page, job["question"])
    page.fill("#key", job["key"])
    page.keyboard.press("Control+Enter")
    ended(page, 3)
    seen["answer"] = page.locator(".answer").first.inner_text()
    seen["curl"] = page.locator("article pre").first.text_content()
    seen["stored"] = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
    page.reload()
    page.locator("#key-field:not([hidden])").wait_for()
    return dict(seen, after_reload=page.input_value("#key"))


def looks(page, job):
    page.fill("#prompt", job["question"])
    page.keyboard.press("Control+Enter")
    ended(page)
    page.locator("#tasks span").nth(1).click()
    page.fill("#prompt", job["prompt"])
    page.keyboard.press("Control+Enter")
    ended(page, 2)
    page.click("#settings summary")
    page.fill("#temperature", "9")
    send(page, job["prompt"])
    page.locator("article summary").first.click()
    seen, overflow = {}, {}
    for mode in ("light", "dark"):
        page.emulate_media(color_scheme=mode)
        seen[mode] = page.evaluate(LOOKS)
    for width in (320, 390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        overflow[str(width)] = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return dict(seen, overflow=overflow)


def prefix(page, job):
    """As behind a proxy that serves it all under /clinic/."""
    asked = []

    def pass_on(route):
        asked.append(route.request.url[len(job["url"]) - 1:])
        route.continue_(url=route.request.url.replace("/clinic/", "/"))
    page.route("**/clinic/**", pass_on)
    page.goto(job["url"] + "clinic/")
    page.locator("#health[data-state=ok]").wait_for()
    page.fill("#prompt", job["question"])
    page.keyboard.press("Control+Enter")
    ended(page)
    return {"asked": asked, "answer": page.inner_text(".answer"), "curl": page.text_content("article pre")}


def modules(page, job):
    """examples/javascript in a page of the server's own origin, which is put in its place here: ours lets in no other script."""
    for name in ("ask.mjs", "draw.mjs"):
        path = os.path.join(job["modules"], name)
        page.route("**/" + name, lambda route, _, path=path: route.fulfill(path=path, content_type="text/javascript"))
    page.route("**/empty.html", lambda route: route.fulfill(body="<!doctype html><link rel=icon href=data:,>", content_type="text/html"))
    page.goto(job["url"] + "empty.html")
    return page.evaluate("""async job => {
      const {ask} = await import('/ask.mjs'), {draw} = await import('/draw.mjs');
      const seen = {pieces: [], progress: [], previews: 0};
      seen.answer = await ask({question: job.question, onText: t => t && seen.pieces.push(t)});
      const {blob} = await draw({prompt: job.prompt, seed: 3, onProgress: p => seen.progress.push(p), onPreview: () => seen.previews++});
      return {...seen, size: blob.size};
    }""", job)


def main():
    job = json.loads(sys.argv[1])
    wrong = []
    with sync_playwright() as p:
        # As root chromium has no sandbox of its own; it talks to our daemon only.
        browser = p.chromium.launch(executable_path=job["chromium"], args=["--no-sandbox"] if os.getuid() == 0 else [])
        page = browser.new_context(accept_downloads=True).new_page()
        refused = "Failed to load resource"  # what chromium says of each 4xx and 5xx; only where those are wanted
        wanted = job["step"] in ("errors", "key", "looks")
        page.on("console", lambda m: wanted and m.text.startswith(refused) or wrong.append("console: " + m.text))
        page.on("pageerror", lambda e: wrong.append("exception: %s" % e))
        page.on("request", lambda r: r.url.startswith((job["url"], "blob:" + job["url"], "data:")) or wrong.append("request: " + r.url))
        open_page(page, job)
        seen = {"ask": ask, "draw": draw, "keyboard": keyboard, "errors": errors, "key": key, "looks": looks,
                "prefix": prefix, "modules": modules}[job["step"]](page, job)
        browser.close()
    if wrong:
        sys.exit("the page: " + "; ".join(wrong[:5]))
    print(json.dumps(seen))


main()
