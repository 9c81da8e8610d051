"""Read tests/http/*.case (README.md says how they are written) and hold a daemon to them."""
import glob
import json
import os
import re
import socket

HERE = os.path.dirname(os.path.abspath(__file__))
ASK = b'{"question":"Hi?","max_tokens":1}'
MACROS = {"H": b"Host: localhost", "T": b"Content-Type: application/json", "L": b"%d" % len(ASK), "ask": ASK,
          "askhex": b"%x" % len(ASK)}
ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}
FIRST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
BEHIND = (b"POST /v1/vqa HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
          b"Content-Length: %d\r\n\r\n" % len(ASK)) + ASK
STUCK = b"(and the connection stays open)"
POSITIONS = ("first", "pipelined", "kept alive")


def unescape(text):
    out, i = b"", 0
    while i < len(text):
        repeat = re.match(r"\{([^{}]+)\*(\d+)\}", text[i:])
        macro = re.match(r"\{(\w+)\}", text[i:])
        if text[i] == "\\" and text[i + 1] == "x":
            out, i = out + bytes([int(text[i + 2:i + 4], 16)]), i + 4
        elif text[i] == "\\":
            out, i = out + ESCAPES[text[i + 1]], i + 2
        elif repeat:
            out, i = out + unescape(repeat.group(1)) * int(repeat.group(2)), i + repeat.end()
        elif macro and macro.group(1) in MACROS:
            out, i = out + MACROS[macro.group(1)], i + macro.end()
        else:
            out, i = out + text[i].encode(), i + 1
    return out


class Case:
    def __init__(self, title):
        self.title, self.data, self.expected = title, b"", None

    def add(self, line):
        if line.startswith(">> "):
            self.data += unescape(line[3:])
        elif line == ">" or line.startswith("> "):
            self.data += unescape(line[2:]) + b"\r\n"
        elif line.startswith("< "):
            words = line[2:].split()
            self.waits = words[0] == "waits"
            self.statuses = set() if self.waits or words[0] == "none" else set(map(int, words[0].split("|")))
            self.ends = words[1].split("|") if not self.waits else ["waits"]
            self.runs = words[2] if len(words) > 2 else ""
            self.expected = line[2:]
        else:
            raise ValueError("%s: %r" % (self.title, line))


def read_cases(folder=HERE):
    cases = []
    for path in sorted(glob.glob(os.path.join(folder, "*.case"))):
        with open(path, encoding="utf-8") as f:
            for line in f.read().split("\n"):
                if line.startswith("== "):
                    cases.append(Case(line[3:]))
                elif line:
                    cases[-1].add(line)
    for c in cases:
        if c.expected is None or not c.data:
            raise ValueError(c.title + ": nothing sent or nothing expected")
    return cases


def read_all(s):
    got = b""
    try:
        while True:
            piece = s.recv(65536)
            if not piece:
                return got
            got += piece
    except socket.timeout:
        return got + STUCK
    except (ConnectionResetError, BrokenPipeError):
        return got


def read_one(s):
    """One answer with a Content-Length, and not a byte more."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = s.recv(1)
        if not piece:
            return got
        got += piece
    n = int(re.search(rb"content-length: (\d+)", got, re.I).group(1))
    while n > 0:
        piece = s.recv(n)
        got, n = got + piece, n - len(piece)
    return got


def accepted(port):
    """How many questions the daemon has taken so far."""
    with socket.create_connection(("127.0.0.1", port), 30) as s:
        s.sendall(FIRST)
        return json.loads(read_one(s).partition(b"\r\n\r\n")[2])["ledger"]["accepted"]


def exchange(port, case, position, seconds=30):
    """The bytes that come back for the case and what stands behind it."""
    with socket.create_connection(("127.0.0.1", port), seconds) as s:
        first = b""
        if position == "kept alive":
            s.sendall(FIRST)
            first = read_one(s)
        try:
            s.sendall((FIRST if position == "pipelined" else b"") + case.data + BEHIND)
        except (ConnectionResetError, BrokenPipeError):
            pass
        if case.waits:
            s.settimeout(0.05)
            try:
                if position == "pipelined":
                    first = read_one(s)
                got = s.recv(1)
                return first, got + b"(nothing should have come)"
            except socket.timeout:
                pass
            s.settimeout(seconds)
            try:
                s.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        got = read_all(s)
    if position == "pipelined" and not case.waits:
        head, _, rest = got.partition(b"\r\n\r\n")
        n = re.search(rb"content-length: (\d+)", head, re.I)
        cut = len(head) + 4 + (int(n.group(1)) if n else 0)
        first, got = got[:cut], got[cut:]
    return first, got


def judge(case, position, first, got, ran):
    """What is wrong, or None. `ran`: questions that were computed."""
    if position != "first" and not first.startswith(b"HTTP/1.1 200"):
        return "the good request before it: %r" % first[:80]
    if got.endswith(STUCK):
        return "expected %s, but the connection stays open: %r" % (case.expected, got[:80])
    statuses = [int(m) for m in re.findall(rb"HTTP/1\.[01] (\d{3}) ", got) if m != b"100"]
    if case.waits:
        # After the client's end the library may still refuse what is not whole; nothing has run.
        return "expected no answer, got %r" % got[:80] if ran or 200 in statuses else None
    own = statuses[0] if statuses else None
    if case.statuses and own not in case.statuses:
        return "expected %s, got %s %r" % (case.expected, own, got[:120])
    if "skipped" in case.ends:
        return None if statuses == [200] and ran == 1 else "expected only what is behind, got %s" % statuses
    if not case.statuses and own and own < 400:
        return "expected to be closed, got %r" % got[:80]
    own_run = 1 if case.runs == "ran" or (case.runs == "ran?" and own == 200) else 0
    for end in case.ends:
        behind = 1 if end == "keep" else 0
        # libmicrohttpd 0.9.75 writes the head of its own refusals twice.
        rest = statuses[1:] if behind or own_run else [s for s in statuses[1:] if s != own]
        if rest == [200] * behind and ran == own_run + behind:
            return None
    return "expected %s, got %s and %d questions computed" % (case.expected, statuses, ran)


def run(port, cases, say=None, positions=POSITIONS, seconds=30):
    """The failures, as lines of text. seconds: after which a connection is stuck."""
    failures, before = [], accepted(port)
    for case in cases:
        for position in positions:
            first, got = exchange(port, case, position, seconds)
            now = accepted(port)
            wrong = judge(case, position, first, got, now - before)
            before = now
            if wrong:
                failures.append("%s (%s): %s" % (case.title, position, wrong))
            if say:
                say("%-4s %s (%s)" % ("FAIL" if wrong else "ok", case.title, position))
    return failures
