"""Calls of the official openai package against a daemon; run by its own interpreter (check_openai.py).
    openai_calls.py URL KEY IMAGE
prints one JSON object per call: {"name", "error"} (error null: it was as expected)."""
import asyncio
import base64
import io
import json
import sys
import traceback

import openai

URL, KEY, IMAGE = sys.argv[1:4]
client = openai.OpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0)
with open(IMAGE, "rb") as f:
    PNG = f.read()
URI = "data:image/png;base64," + base64.b64encode(PNG).decode()
MODEL = "healthgpt-demo"
SEEN = [{"role": "user", "content": [{"type": "text", "text": "Is there pneumonia?"},
                                     {"type": "image_url", "image_url": {"url": URI}}]}]


def equal(got, want, what):
    assert got == want, "%s: expected %r, got %r" % (what, want, got)


def is_png(text):
    assert base64.b64decode(text, validate=True).startswith(b"\x89PNG"), "not a PNG"


def chat_with_an_image():
    r = client.chat.completions.create(model=MODEL, messages=SEEN, max_tokens=20)
    assert r.choices[0].message.content and r.choices[0].finish_reason in ("stop", "length"), r
    equal(r.choices[0].message.role, "assistant", "role")
    equal(r.usage.total_tokens, r.usage.prompt_tokens + r.usage.completion_tokens, "total")
    equal(r.usage.prompt_tokens_details.image_tokens, 64, "image tokens")
    assert r.system_fingerprint.startswith("fp_") and r.id.startswith("chatcmpl-"), r
    assert r.model_extra["healthgpt"]["image_transform"][0]["side"] == 64, r


def streaming_chat():
    plain = client.chat.completions.create(model=MODEL, messages=SEEN, max_tokens=12)
    chunks = list(client.chat.completions.create(model=MODEL, messages=SEEN, max_tokens=12, stream=True,
                                                 stream_options={"include_usage": True}))
    equal(len({c.id for c in chunks}), 1, "ids")
    equal(len({c.created for c in chunks}), 1, "created")
    first = chunks[0].choices[0].delta
    equal((first.role, bool(first.content)), ("assistant", True), "role and token in the first chunk")
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    equal(text, plain.choices[0].message.content, "text")
    equal([c.choices[0].finish_reason for c in chunks if c.choices][-1], plain.choices[0].finish_reason, "finish")
    equal(chunks[-1].choices, [], "choices of the chunk with the usage")
    equal(chunks[-1].usage.completion_tokens, plain.usage.completion_tokens, "usage")
    assert all(c.usage is None for c in chunks[:-1]), "usage before the last chunk"


def streaming_helper():
    with client.chat.completions.stream(model=MODEL, messages=SEEN, max_tokens=8) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.content


def async_client():
    async def go():
        c = openai.AsyncOpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0)
        rs = await asyncio.gather(*(c.chat.completions.create(model=MODEL, messages=SEEN, max_tokens=6)
                                    for _ in range(4)))
        text = ""
        async for chunk in await c.chat.completions.create(model=MODEL, messages=SEEN, max_tokens=6, stream=True):
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        equal({r.choices[0].message.content for r in rs}, {text}, "texts")
    asyncio.run(go())


def multi_turn_with_system():
    messages = [{"role": "system", "content": "Answer briefly."}] + SEEN
    one = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=8)
    more = messages + [{"role": "assistant", "content": one.choices[0].message.content},
                       {"role": "user", "content": "Are you sure?"}]
    two = client.chat.completions.create(model=MODEL, messages=more, max_tokens=8)
    assert two.usage.prompt_tokens > one.usage.prompt_tokens, (one.usage, two.usage)
    assert two.usage.prompt_tokens_details.cached_tokens > 0, two.usage


def choices_and_seeds():
    ask = dict(model=MODEL, messages=SEEN, max_tokens=8, temperature=1.5, seed=11)
    r = client.chat.completions.create(n=4, **ask)
    equal([c.index for c in r.choices], [0, 1, 2, 3], "indices")
    again = client.chat.completions.create(n=4, **ask)
    equal([c.message.content for c in again.choices], [c.message.content for c in r.choices], "the same seed")
    third = client.chat.completions.create(**dict(ask, seed=13))
    equal(third.choices[0].message.content, r.choices[2].message.content, "choice 2 has seed + 2")
    texts = {}
    for chunk in client.chat.completions.create(n=4, stream=True, **ask):
        for c in chunk.choices:
            texts[c.index] = texts.get(c.index, "") + (c.delta.content or "")
    equal(texts, {c.index: c.message.content for c in r.choices}, "streamed choices")


def stop_strings():
    whole = client.chat.completions.create(model=MODEL, messages=SEEN, max_tokens=12).choices[0].message.content
    word = whole.split()[-1][:3]
    at = whole.index(word)
    cut = client.chat.completions.create(model=MODEL, messages=SEEN, max_tokens=12, stop=[word, "\n\n\n"])
    equal(cut.choices[0].message.content, whole[:at], "text before the stop string")
    equal(cut.choices[0].finish_reason, "stop", "finish")
    chunks = client.chat.completions.create(model=MODEL, messages=SEEN, max_tokens=12, stop=word, stream=True)
    equal("".join(c.choices[0].delta.content or "" for c in chunks), whole[:at], "streamed")


def log_probabilities():
    r = client.chat.completions.create(model=MODEL, messages=SEEN, max_tokens=4, logprobs=True, top_logprobs=3)
    content = r.choices[0].logprobs.content
    assert 0 < len(content) <= r.usage.completion_tokens
    for t in content:
        equal(len(t.top_logprobs), 3, "alternatives")
        assert t.logprob <= 0 and t.top_logprobs[0].logprob >= t.top_logprobs[2].logprob
        equal(t.logprob, t.top_logprobs[0].logprob, "greedy takes the likeliest")
    joined = b"".join(bytes(t.bytes) for t in content).decode().strip()
    equal(joined, r.choices[0].message.content.strip(), "bytes")


def chat_draws():
    r = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Draw a chest X-ray."}],
                                       seed=3, extra_body={"modalities": ["text", "image"]})
    images = r.choices[0].message.model_extra["images"]
    is_png(images[0]["image_url"]["url"].split(",", 1)[1])
    equal(r.choices[0].message.content, "", "content")
    deltas = [c.choices[0].delta for c in client.chat.completions.create(
        model=MODEL + ":generation", messages=[{"role": "user", "content": "Draw a chest X-ray."}], seed=3,
        stream=True) if c.choices]
    equal([d.model_extra["images"] for d in deltas if (d.model_extra or {}).get("images")], [images], "streamed image")


def images_generate():
    r = client.images.generate(model=MODEL, prompt="Draw a chest X-ray.", n=2, size="512x512",
                               response_format="b64_json", extra_body={"seed": 5})
    for d in r.data:
        is_png(d.b64_json)
    assert r.data[0].b64_json != r.data[1].b64_json, "two pictures"
    equal(r.model_extra["size"] if "size" in (r.model_extra or {}) else r.size, "64x64", "native size")
    equal(r.usage.output_tokens, 128, "tokens of two pictures")


def images_stream_with_partials():
    for n in range(4):
        events = list(client.images.generate(model=MODEL, prompt="Draw a chest X-ray.", stream=True,
                                             partial_images=n, extra_body={"seed": 5}))
        equal([e.type for e in events], ["image_generation.partial_image"] * (len(events) - 1) +
              ["image_generation.completed"], "events")
        equal(len(events) - 1, n, "partial images")
        equal([e.partial_image_index for e in events[:-1]], list(range(n)), "indices")
        for e in events:
            is_png(e.b64_json)
            equal((e.size, e.quality, e.background, e.output_format), ("64x64", "auto", "opaque", "png"), "facts")
            assert e.created_at > 0
        equal(events[-1].usage.output_tokens, 64, "usage")


def images_edit():
    one = client.images.edit(model=MODEL, image=("scan.png", PNG, "image/png"), prompt="Reconstruct the image.")
    is_png(one.data[0].b64_json)
    many = client.images.edit(model=MODEL, prompt="Reconstruct the image.",
                              image=[("a.png", PNG, "image/png"), ("b.png", io.BytesIO(PNG), "image/png")])
    is_png(many.data[0].b64_json)
    assert many.usage.input_tokens_details.image_tokens == 2 * one.usage.input_tokens_details.image_tokens
    events = list(client.images.edit(model=MODEL, image=("scan.png", PNG, "image/png"), stream=True, partial_images=2,
                                     prompt="Reconstruct the image."))
    equal([e.type for e in events], ["image_edit.partial_image"] * 2 + ["image_edit.completed"], "events")
    equal(events[-1].b64_json, one.data[0].b64_json, "streamed and plain")


def images_edit_json():
    r = client.post("/images/edits", cast_to=object, body={"prompt": "Reconstruct the image.",
                                                           "images": [{"image_url": URI}]})
    one = client.images.edit(model=MODEL, image=("scan.png", PNG, "image/png"), prompt="Reconstruct the image.")
    equal(r["data"][0]["b64_json"], one.data[0].b64_json, "JSON and form")


def text_completion():
    r = client.completions.create(model=MODEL, prompt="Is there pneumonia?", max_tokens=8, logprobs=2)
    equal(r.object, "text_completion", "object")
    assert r.choices[0].text and len(r.choices[0].logprobs.tokens) == len(r.choices[0].logprobs.text_offset)
    text = "".join(c.choices[0].text for c in client.completions.create(
        model=MODEL, prompt=["Is there pneumonia?"], max_tokens=8, stream=True) if c.choices)
    equal(text, r.choices[0].text, "streamed")


def models():
    ids = [m.id for m in client.models.list()]
    equal(ids, [MODEL, MODEL + ":comprehension", MODEL + ":generation"], "models")
    for name in ids:
        equal(client.models.retrieve(name).id, name, "retrieve")


def raises(kind, code, param, call):
    try:
        call()
    except kind as e:
        equal((type(e), e.code, e.param), (kind, code, param), str(e))
        assert e.request_id.startswith("req-"), e.request_id
        return e
    raise AssertionError("expected %s" % kind.__name__)


def typed_errors():
    say = [{"role": "user", "content": "Hello?"}]
    make = client.chat.completions.create
    raises(openai.BadRequestError, "invalid_value", "temperature", lambda: make(model=MODEL, messages=say, temperature=3))
    raises(openai.BadRequestError, "unsupported_parameter", "tools", lambda: make(
        model=MODEL, messages=say, tools=[{"type": "function", "function": {"name": "f"}}]))
    raises(openai.BadRequestError, "invalid_value", "n", lambda: make(model=MODEL, messages=say, n=5))
    raises(openai.BadRequestError, "remote_url_disabled", "messages[0].content[0]", lambda: make(
        model=MODEL, messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {
            "url": "https://example.org/x.png"}}, {"type": "text", "text": "?"}]}]))
    raises(openai.BadRequestError, "context_length_exceeded", None, lambda: make(
        model=MODEL, messages=[{"role": "user", "content": "lung " * 5000}]))
    raises(openai.NotFoundError, "model_not_found", "model", lambda: make(model="gpt-9", messages=say))
    raises(openai.NotFoundError, "model_not_found", "model", lambda: client.models.retrieve("gpt-9"))
    stranger = openai.OpenAI(base_url=URL + "/v1", api_key="hg-wrong", max_retries=0)
    raises(openai.AuthenticationError, "invalid_api_key", None, lambda: stranger.models.list())


def rate_limit():
    """The key has one place in the queue: of many at once some are told so, by the right type."""
    async def go():
        c = openai.AsyncOpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0)
        rs = await asyncio.gather(*(c.images.generate(model=MODEL, prompt="Draw a chest X-ray.")
                                    for _ in range(24)), return_exceptions=True)
        refused = [r for r in rs if isinstance(r, Exception)]
        assert refused and len(refused) < len(rs), "%d of %d refused" % (len(refused), len(rs))
        for r in refused:
            equal((type(r), r.code), (openai.RateLimitError, "rate_limit_exceeded"), str(r))
            assert float(r.response.headers["retry-after"]) <= 120
    asyncio.run(go())


CALLS = [chat_with_an_image, streaming_chat, streaming_helper, async_client, multi_turn_with_system, choices_and_seeds,
         stop_strings, log_probabilities, chat_draws, images_generate, images_stream_with_partials, images_edit,
         images_edit_json, text_completion, models, typed_errors, rate_limit]
for call in CALLS:
    error = None
    try:
        call()
    except Exception as e:
        error = "%s: %s" % (type(e).__name__, e) + traceback.format_exc()[-400:]
    print(json.dumps({"name": call.__name__, "error": error}), flush=True)
