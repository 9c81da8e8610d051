"""What the end-to-end checks share: counting, running the programs, talking HTTP."""
import base64
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHARED = os.environ.get("HG_SHARED", os.path.join(ROOT, "..", "shared"))
DEMO = os.path.join(ROOT, "config", "models", "demo")
LOG_ALARMS = re.compile(r"Sanitizer|runtime error|LeakSanitizer|ALERT|Assertion")

counts = {"passed": 0, "failed": 0, "skipped": 0}


class Fail(Exception):
    pass


class Skip(Exception):
    pass


def require(condition, text):
    if not condition:
        raise Fail(text)


def equal(got, expected, what):
    require(got == expected, "%s: expected %.300r, got %.300r" % (what, expected, got))


def check(name, function, *args):
    start = time.monotonic()
    try:
        note = function(*args)
        counts["passed"] += 1
        print("ok    %-58s %6.2f s%s" % (name, time.monotonic() - start, "  " + note if note else ""),
              flush=True)
    except Skip as e:
        counts["skipped"] += 1
        print("skip  %s: %s" % (name, e), flush=True)
    except Exception as e:  # a broken check must not hide the others
        counts["failed"] += 1
        print("FAIL  %s: %s: %s" % (name, type(e).__name__, e), flush=True)


def run_module(module, build):
    for name in dir(module):
        if name.startswith("check_"):
            check(name[6:], getattr(module, name), build)


# ---- pictures ----------------------------------------------------------------------------------------

def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, rgb=None):
    """A PNG; without `rgb` only the header is true (a bomb for a careless reader)."""
    rows = b"" if rgb is None else b"".join(
        b"\0" + rgb[y * width * 3:(y + 1) * width * 3] for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b""))


def test_image(seed=0, side=64):
    return png(side, side, bytes((x * 3 + y * 5 + seed * 37) & 255
                                 for y in range(side) for x in range(side) for _ in range(3)))


def png_rows(data):
    """Bytes of each row of an 8-bit picture without interlacing."""
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    size, at, packed = {0: 1, 2: 3}[colour], 8, b""
    require(depth == 8, "bit depth %d" % depth)
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        packed += data[at + 8:at + 8 + n] if kind == b"IDAT" else b""
        at += n + 12
    raw, rows, above = zlib.decompress(packed), [], bytes(width * size)
    for y in range(height):
        start = y * (width * size + 1)
        how, row = raw[start], bytearray(raw[start + 1:start + 1 + width * size])
        for i in range(len(row)):
            left, up = row[i - size] if i >= size else 0, above[i]
            corner = above[i - size] if i >= size else 0
            guess = left + up - corner
            paeth = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
            row[i] = (row[i] + (0, left, up, (left + up) // 2, paeth)[how]) & 255
        rows.append(bytes(row))
        above = row
    return rows


def png_texts(data):
    """The tEXt chunks as a dict; checks that the signature and every CRC are right."""
    equal(data[:8], b"\x89PNG\r\n\x1a\n", "PNG signature")
    at, texts = 8, {}
    while at < len(data):
        n, kind = struct.unpack(">I", data[at:at + 4])[0], data[at + 4:at + 8]
        body = data[at + 8:at + 8 + n]
        equal(struct.unpack(">I", data[at + 8 + n:at + 12 + n])[0], zlib.crc32(kind + body), "CRC")
        if kind == b"tEXt":
            key, _, value = body.partition(b"\0")
            texts[key.decode()] = value.decode()
        at += 12 + n
    return texts


SYNTHETIC_XMP = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def png_chunks(data):
    """[(kind, body)]; checks the signature and every CRC."""
    png_texts(data)
    at, found = 8, []
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        found.append((kind.decode(), data[at + 8:at + 8 + n]))
        at += 12 + n
    return found


def require_synthetic(data, **facts):
    """The marks of server/api/synthetic.h and no other chunk; `facts` that the comment has to hold. What the comment says."""
    chunks = png_chunks(data)
    kinds = [kind for kind, _ in chunks if kind != "IDAT"]
    equal(kinds, ["IHDR", "tEXt", "tEXt", "tEXt", "iTXt", "IEND"], "chunks of the picture")
    texts = png_texts(data)
    equal(sorted(texts), ["Comment", "Software", "Source"], "text chunks")
    require(re.fullmatch(r"healthgpt \d+\.\d+\.\d+", texts["Software"]), "Software: %r" % texts)
    equal(texts["Source"], "AI generated; not for diagnosis", "Source")
    said = json.loads(texts["Comment"])
    equal(sorted(said), ["model", "plugin", "seed", "version", "weights"], "members of Comment")
    require(re.fullmatch(r"crc32c:[0-9a-f]{8}", said["weights"]), "weights: %r" % said)
    equal({k: said[k] for k in facts}, facts, "facts of Comment")
    head, _, packet = dict(chunks)["iTXt"].partition(b"\0\0\0\0\0")
    equal(head, b"XML:com.adobe.xmp", "keyword of iTXt")
    root = xml.etree.ElementTree.fromstring(packet.decode("utf-8").lstrip("\ufeff"))
    kind = root.find(".//{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    require(kind is not None and kind.text == SYNTHETIC_XMP, "XMP: %r" % packet)
    return said


def edit_json(path, **values):
    with open(path) as f:
        doc = json.load(f)
    doc.update(values)
    with open(path, "w") as f:
        json.dump(doc, f)


# ---- the command line ---------------------------------------------------------------------------------

def cli(build, *args, stdin=None, cwd=None, timeout=300):
    p = subprocess.run([os.path.join(ROOT, build, "healthgpt")] + list(args), input=stdin,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd or ROOT, timeout=timeout)
    err = p.stderr.decode("utf-8", "replace")
    require(not LOG_ALARMS.search(err), "sanitizer: " + err[-2000:])
    return p.returncode, p.stdout.decode("utf-8", "replace"), err


def cli_ok(build, *args, **kw):
    code, out, err = cli(build, *args, **kw)
    require(code == 0, "%s: exit %d: %s" % (args, code, err[-500:]))
    return out


# ---- the daemon ---------------------------------------------------------------------------------------

class Daemon:
    """healthgptd on a free port; leaving the block stops it and checks exit code and log."""

    def __init__(self, build, *args, expect_exit=0, env=None, program="healthgptd", under=(), any_address=False, cwd=None,
                 preexec=None):
        self.expect_exit = expect_exit
        if "simt" in args and "--canary-interval-s" not in args:
            args += ("--canary-interval-s", "0")  # the emulation takes 6 s for it
        self.ended = False  # the check has looked at the end itself
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            list(under) + [os.path.join(ROOT, build, program), "--listen", "127.0.0.1:0", "--ops-listen", ""] + list(args),
            stdout=subprocess.PIPE, stderr=self.log, cwd=cwd or ROOT, env=dict(os.environ, **(env or {})),
            preexec_fn=preexec)
        line = self.process.stdout.readline().decode()
        address = r"0\.0\.0\.0" if any_address else r"127\.0\.0\.1"
        m = re.search(r"^healthgptd: listening on http://%s:(\d+) \(model .+, backend .+\)$" % address, line)
        if not m:
            self.process.wait(30)
            raise Fail("daemon did not start: %r %s" % (line, self.log_text()[-800:]))
        self.port = int(m.group(1))

    def log_text(self):
        # pread: the daemon writes at the offset of the same open file, which must not move.
        n = self.log.fileno()
        return os.pread(n, os.fstat(n).st_size, 0).decode("utf-8", "replace")

    def __enter__(self):
        return self

    def stop(self, sig=signal.SIGTERM, timeout=60):
        self.process.send_signal(sig)
        code = self.process.wait(timeout)
        log = self.log_text()
        require(not LOG_ALARMS.search(log), "daemon log: " + log[-2500:])
        return code

    def expect_end(self, timeout=60):
        """For checks that end the daemon themselves: exit code 0 and a clean log."""
        equal(self.process.wait(timeout), 0, "exit code")
        log = self.log_text()
        require(not LOG_ALARMS.search(log), "daemon log: " + log[-2500:])
        self.ended = True

    def __exit__(self, kind, value, trace):
        if self.ended:
            pass
        elif self.process.poll() is None:
            code = self.stop()
            if kind is None:
                equal(code, self.expect_exit, "daemon exit code")
        elif kind is None:
            raise Fail("daemon has died with %d: %s" % (self.process.returncode, self.log_text()[-2500:]))
        self.process.stdout.close()

    def request(self, method, path, body=None, headers=None, timeout=120):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            c.request(method, path, body, headers or {})
            r = c.getresponse()
            return r.status, dict(r.getheaders()), r.read()
        finally:
            c.close()

    def post(self, path, value, **kw):
        body = value if isinstance(value, (bytes, str)) else json.dumps(value)
        status, headers, data = self.request("POST", path, body, {"Content-Type": "application/json"}, **kw)
        return status, headers, json.loads(data)

    def post_ok(self, path, value):
        status, _, reply = self.post(path, value)
        equal(status, 200, "%s: %r" % (path, str(reply)[:300]))
        return reply

    def form(self, path, parts):
        """parts: (name, value) or (name, bytes, file name)."""
        boundary = "----e2eBoundary7f3a"
        body = b""
        for p in parts:
            body += ("--%s\r\nContent-Disposition: form-data; name=\"%s\"" % (boundary, p[0])).encode()
            if len(p) == 3:
                body += ('; filename="%s"\r\nContent-Type: application/octet-stream' % p[2]).encode()
            body += b"\r\n\r\n" + (p[1] if isinstance(p[1], bytes) else p[1].encode()) + b"\r\n"
        body += ("--%s--\r\n" % boundary).encode()
        status, headers, data = self.request(
            "POST", path, body, {"Content-Type": "multipart/form-data; boundary=" + boundary})
        return status, headers, json.loads(data)

    def stream(self, path, value):
        """The lines of a stream, and the headers."""
        status, headers, data = self.request("POST", path, json.dumps(dict(value, stream=True)),
                                             {"Content-Type": "application/json"})
        equal(status, 200, data[:300])
        equal(headers["Content-Type"], "application/x-ndjson", "Content-Type")
        require(data.endswith(b"\n"), "stream ends in a newline")
        return [json.loads(line) for line in data.split(b"\n")[:-1]], headers

    def health(self):
        status, _, data = self.request("GET", "/health")
        equal(status, 200, "/health")
        return json.loads(data)

    def raw(self, data, timeout=20):
        """Send bytes, return everything until the server closes or the first answer is complete."""
        with socket.create_connection(("127.0.0.1", self.port), timeout) as s:
            s.sendall(data)
            got = b""
            while True:
                try:
                    piece = s.recv(65536)
                except ConnectionResetError:
                    return got
                if not piece:
                    return got
                got += piece
                head, sep, body = got.partition(b"\r\n\r\n")
                m = re.search(rb"content-length: (\d+)", head, re.I)
                if sep and m and len(body) >= int(m.group(1)):
                    return got

    def wait_idle(self, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            h = self.health()
            if h["queue"]["running"] == 0 and h["queue"]["depth"] == 0:
                return h
            time.sleep(0.02)
        raise Fail("still busy: %r" % h)

    def status_kb(self, key):
        """VmRSS, VmHWM (the peak) of the daemon."""
        with open("/proc/%d/status" % self.process.pid) as f:
            return int(re.search(key + r":\s+(\d+)", f.read()).group(1))


class Slow(Daemon):
    """Each step takes `ms` more: a picture of 64 tokens 6.4 s, so that what has begun is still there when a check that a
    busy machine holds up goes on."""

    def __init__(self, build, *args, ms=100, **kw):
        super().__init__(build, *args, env=dict(kw.pop("env", {}), HG_FAULT="slow_step:count=0,ms=%d" % ms),
                         program="healthgptd-faults", **kw)


def until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        require(time.monotonic() < end, "not within %d s: %s" % (seconds, what))
        time.sleep(0.005)


def read_to_end(s):
    """What comes until the other side closes, or resets."""
    got = b""
    try:
        for piece in iter(lambda: s.recv(65536), b""):
            got += piece
    except ConnectionResetError:
        pass
    return got


def b64(data):
    return base64.b64encode(data).decode()


def require_error(status, reply, http_status, code=None, param=None):
    equal(status, http_status, "status of %r" % (reply,))
    error = reply["error"]
    equal(sorted(error), ["code", "message", "param", "type"], "error members")
    require(error["message"], "an error needs a message")
    if code:
        equal(error["code"], code, "code of %r" % error["message"])
    if param:
        equal(error["param"], param, "param of %r" % error["message"])
    # addresses, absolute paths (routes are none), source lines
    leak = re.search(r"0x[0-9a-f]{6,}|(?<![\w./])/(?!v1/)[\w.-]+/[\w.-]+|\.c:\d", error["message"])
    require(not leak, "error text leaks: " + error["message"])
    return error


def is_sanitized(build):
    return "address" in build or "thread" in build
