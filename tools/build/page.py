#!/usr/bin/env python3
"""Make the page of GET / out of server/page/ as a C file: one document, with the hashes of its script and its style in the
Content-Security-Policy that goes with it.

usage: page.py OUT.c"""
import base64
import hashlib
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MAX_BYTES = 40000
POLICY = ("default-src 'none'; script-src '{js}'; style-src '{css}'; img-src blob: data:; connect-src 'self'; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'")


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as f:
        return f.read()


def notice():
    """HG_NOTICE of server/notice.h, which may be cut into several literals."""
    text = re.search(r"#define HG_NOTICE\s+((?:[^\n]*\\\n)*[^\n]*)", read("server", "notice.h")).group(1)
    return "".join(re.findall(r'"([^"]*)"', text))


def sha(text):
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def page():
    """(bytes of the document, policy)"""
    css, js = read("server", "http", "page", "page.css"), read("server", "http", "page", "page.js")
    head = "Research use only. "
    text = notice()
    assert text.startswith(head), "server/notice.h: expected \"%s...\"" % head
    assert not re.search(r"[<>&{}\"]", text), "server/notice.h: characters that mean something in HTML"
    assert "</" not in css and "</script" not in js and "<!--" not in js, "page.css, page.js: ends its own element"
    html = read("server", "http", "page", "page.html")
    for key, value in (("notice_rest", text[len(head):]), ("css", css), ("js", js)):
        assert html.count("{{%s}}" % key) == 1, "page.html: expected {{%s}} once" % key
        html = html.replace("{{%s}}" % key, value)
    data = html.encode()
    assert len(data) <= MAX_BYTES, "the page has %d bytes, at most %d" % (len(data), MAX_BYTES)
    return data, POLICY.format(js=sha(js), css=sha(css))


def main():
    data, policy = page()
    rows = "\n".join("    " + ",".join("%d" % b for b in data[i:i + 32]) + "," for i in range(0, len(data), 32))
    text = ("/* Made by tools/build/page.py from server/page/. */\n#include \"server/http/page.h\"\n\n"
            "static const unsigned char html[] = {\n%s\n};\n\n"
            "const struct hg_page hg_page = {html, sizeof html,\n    \"%s\"};\n" % (rows, policy))
    os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True)
    with open(sys.argv[1], "w", encoding="utf-8") as f:
        f.write(text)


if __name__ == "__main__":
    main()
