"""Bodies as they arrive: pictures never meet the JSON parser or a disk, and cost little memory."""
import http.client
import json
import os
import re
import shutil
import socket
import tempfile

from harness import (Daemon, Skip, b64, equal, is_sanitized, png, require, require_error, test_image)

JSON_TYPE = {"Content-Type": "application/json"}


def noise_png(side):
    """Bytes that no compression makes smaller."""
    return png(side, side, os.urandom(side * side * 3))


def check_body_never_on_disk(build):
    strace = shutil.which("strace")
    if not strace:
        raise Skip("strace is not there")
    picture = noise_png(1620)  # 7.9 MB: 10.5 MB of base64
    require(len(b64(picture)) > 10e6, "size of the picture")
    with tempfile.TemporaryDirectory() as folder:
        trace = os.path.join(folder, "trace")
        calls = "open,openat,openat2,creat,memfd_create,mknod,mknodat,connect"
        env = {"ASAN_OPTIONS": "detect_leaks=0"}  # it needs ptrace, which strace has
        under = (strace, "-D", "-f", "-qq", "-e", "trace=" + calls, "-o", trace)
        with Daemon(build, env=env, under=under) as d:
            ask = {"question": "What is shown?", "max_tokens": 1}
            d.post_ok("/v1/vqa", dict(ask, image="data:image/png;base64," + b64(picture)))
            status, _, reply = d.form("/v1/vqa", [("image", picture, "a.png"), ("question", "What?"),
                                                  ("max_tokens", "1")])
            equal(status, 200, reply)
        with open(trace) as f:
            lines = f.read().split("\n")
    opened = [x for x in lines if "open" in x and "O_RDONLY" in x]
    require(len(opened) > 5, "strace has seen the model being opened: %r" % lines[:5])
    made = [x for x in lines if re.search(r"O_CREAT|O_TMPFILE|O_WRONLY|O_RDWR|creat\(|memfd|mknod|connect\(", x)]
    # A terminal or /dev/null for standard streams is none of our doing and has no O_CREAT.
    made = [x for x in made if "/dev/" not in x]
    equal(made, [], "files made or written during two uploads of 10 MB")
    return "%d files opened, all to read" % len(opened)


def check_a_large_picture_costs_its_bytes_and_little_more(build):
    if is_sanitized(build):
        raise Skip("a sanitizer's shadow memory and quarantine are not ours")
    junk = "A" * (21 << 20)  # base64 of 15.75 MiB of zeros: no picture, so nothing is decoded
    with Daemon(build, "--max-batch", "4") as d:
        d.post_ok("/v1/vqa", {"question": "Hi?", "max_tokens": 1})
        before = d.status_kb("VmHWM")
        for body in ({"question": "x", "image": junk}, {"image": "data:image/png;base64," + junk, "question": "x"}):
            status, _, reply = d.post("/v1/vqa", body)
            require_error(status, reply, 400, "invalid_image", "images[0]")
        grown = (d.status_kb("VmHWM") - before) / 1024
        status, _, reply = d.form("/v1/vqa", [("image", b"A" * (15 << 20), "a.png"), ("question", "x")])
        require_error(status, reply, 400, "invalid_image", "images[0]")
    # 15.75 MiB decoded; the text of 21 MiB, were it held only once, would make it 37.
    require(grown < 18, "the peak grew by %.1f MiB for a 21 MiB body" % grown)
    return "peak + %.1f MiB for a body of 21 MiB" % grown


def chunked(port, pieces):
    """A body in chunks; the answer and whether the connection is still good."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        c.putrequest("POST", "/v1/vqa")
        c.putheader("Content-Type", "application/json")
        c.putheader("Transfer-Encoding", "chunked")
        c.endheaders()
        c.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        out = b""
        for p in pieces:
            out += b"%x\r\n%s\r\n" % (len(p), p)
            if len(out) > 1 << 16:
                c.send(out)
                out = b""
        c.send(out + b"0\r\n\r\n")
        r = c.getresponse()
        return r.status, json.loads(r.read())
    finally:
        c.close()


def check_chunks_may_cut_anywhere_and_are_counted(build):
    body = json.dumps({"question": "What?", "image": "data:image/png;base64," + b64(test_image()), "max_tokens": 2}
                      ).replace("/", "\\/").encode()
    with Daemon(build) as d:
        whole = d.post_ok("/v1/vqa", body)
        for size in (1, 2, 3, 7, 1000):
            status, reply = chunked(d.port, [body[i:i + size] for i in range(0, len(body), size)])
            equal(status, 200, reply)
            equal(reply["text"], whole["text"], "in chunks of %d" % size)
        spaces = (b" " for _ in range(66000))
        status, reply = chunked(d.port, spaces)
        require_error(status, reply, 400, "too_many_chunks")
        equal(d.health()["status"], "ok", "after 66000 chunks")


def check_what_is_wrong_with_a_picture_is_said_where_it_stands(build):
    good = "data:image/png;base64," + b64(test_image())
    text = "data:image/png;base64,aGVs bG8="
    with Daemon(build) as d:
        c = http.client.HTTPConnection("127.0.0.1", d.port, timeout=60)
        for images, code, param in (([good, text], "invalid_request", "images[1]"), ([good] * 5, "too_many_images", "images[4]"),
                                    (["\u0001" + "0"], "invalid_json", None), (text, "invalid_request", "images")):
            c.request("POST", "/v1/vqa", json.dumps({"question": "x", "images": images}), JSON_TYPE)
            r = c.getresponse()
            require_error(r.status, json.loads(r.read()), 400, code, param)
        c.request("POST", "/v1/vqa", json.dumps({"question": good}), JSON_TYPE)
        r = c.getresponse()
        require_error(r.status, json.loads(r.read()), 400, "invalid_type", "question")
        c.request("POST", "/v1/vqa", json.dumps({"question": "Hi?", "max_tokens": 1}), JSON_TYPE)
        equal(c.getresponse().status, 200, "the connection is still good")
        c.close()
        form = [("image", test_image(), "a.png")] * 5 + [("question", "x")]
        status, _, reply = d.form("/v1/vqa", form)
        require_error(status, reply, 400, "too_many_images", "images[4]")
        status, _, reply = d.form("/v1/vqa", [("image", b"A" * ((16 << 20) + 1), "a.png")])
        require_error(status, reply, 413, "image_too_large", "images[0]")


def check_caps_beside_the_pictures(build):
    def form(headers, n=1):
        return ("--B\r\n%s\r\n\r\nx\r\n" % "\r\n".join(headers)).encode() * n + b"--B--"
    name, kind = 'Content-Disposition: form-data; name="question"', {"Content-Type": "multipart/form-data; boundary=B"}
    with Daemon(build) as d:
        for n, status in (((1 << 20) - 15, 413), ((1 << 20) - 14, 413)):
            got, _, reply = d.post("/v1/vqa", b'{"question":"' + b"x" * n + b'"}')
            # One byte less is JSON whose text is too long for its field.
            require_error(got, reply, status, "text_too_large" if n == (1 << 20) - 15 else "body_too_large")
        status, _, reply = d.form("/v1/vqa", [("question", "x" * (257 << 10))])
        require_error(status, reply, 413, "text_too_long", "question")
        for body, why in ((form([name], 33), "more than 32 parts"), (form([name, "X: " + "y" * 1022]), "too long headers"),
                          (form([name] + ["X: " + "y" * 500] * 9), "too long headers")):
            status, _, data = d.request("POST", "/v1/vqa", body, kind)
            require(why in require_error(status, json.loads(data), 400, "invalid_form")["message"], data)
        status, _, data = d.request("POST", "/v1/vqa", form([name, "X: " + "y" * 1000]), kind)
        equal(status, 200, data)
