"""HTTP to healthgptd: kept-alive connections, retries, Retry-After. Standard library only."""
from __future__ import annotations

import email.utils
import http.client
import json
import os
import socket
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlsplit

KEY_VARIABLE = "HEALTHGPT_API_KEY"
AGAIN = (408, 425, 429, 500, 502, 503, 504)     # may be another time: asked again
LONGEST_WAIT_S = 120.0


class ClientError(Exception):
    """The run cannot go on: wrong address, key or model, or no answer after all retries."""


class Refused(Exception):
    """This one request has no answer, whenever it is asked: status, code and message of the server."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__("%d %s: %s" % (status, code, message))
        self.status, self.code, self.message = status, code, message


class Client:
    """Safe for any number of threads: each has its own connection."""

    def __init__(self, base: str, timeout_s: float = 120.0, retries: int = 8, key: str | None = None):
        url = urlsplit(base if "//" in base else "http://" + base)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ClientError("--url: expected http://HOST:PORT, got %r" % base)
        self.scheme, self.host, self.port = url.scheme, url.hostname, url.port or (443 if url.scheme == "https" else 80)
        self.prefix = url.path.rstrip("/").removesuffix("/v1")
        self.timeout_s, self.retries = timeout_s, retries
        self.key = os.environ.get(KEY_VARIABLE, "") if key is None else key
        self.stop = threading.Event()
        self.retried = 0        # of the whole run; for the summary
        self._local, self._lock, self._all = threading.local(), threading.Lock(), []

    # ---- one exchange ------------------------------------------------------------------------------
    def _connection(self) -> http.client.HTTPConnection:
        c = getattr(self._local, "connection", None)
        if c is None:
            if self.scheme == "https":
                c = http.client.HTTPSConnection(self.host, self.port, timeout=self.timeout_s, context=ssl.create_default_context())
            else:
                c = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout_s)
            self._local.connection = c
            with self._lock:
                self._all.append(c)
        return c

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, http.client.HTTPMessage, bytes]:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self.key:
            headers["Authorization"] = "Bearer " + self.key
        for attempt in (0, 1):
            c = self._connection()
            kept = c.sock is not None   # a kept connection may have been closed meanwhile: once more on a new one
            try:
                c.request(method, self.prefix + path, body, headers)
                r = c.getresponse()
                return r.status, r.headers, r.read()
            except TimeoutError:
                c.close()
                raise
            except (http.client.HTTPException, OSError):
                c.close()
                if attempt or not kept or self.stop.is_set():
                    raise
        raise AssertionError

    # ---- with patience -----------------------------------------------------------------------------
    def call(self, method: str, path: str, value: Any = None) -> dict[str, Any]:
        """The JSON of a 2xx answer. Asks again after 429, 503 and other passing trouble, as long as Retry-After says
        (else 0.5 s, 1 s, 2 s, .. 30 s); Refused for what will not change, ClientError for what stops the run."""
        body = None if value is None else json.dumps(value).encode()
        trouble = ""
        for attempt in range(self.retries + 1):
            wait = min(30.0, 0.5 * 2 ** attempt)
            status = 0
            try:
                status, headers, data = self._exchange(method, path, body)
            except TimeoutError:
                trouble = "no answer within %g s" % self.timeout_s
            except (http.client.HTTPException, socket.gaierror, ssl.SSLError, OSError) as e:
                trouble = "%s: %s" % (type(e).__name__, e)
            if 200 <= status < 300:
                return self._json(path, data)
            if status:
                refused = _refusal(status, data)
                trouble = str(refused)
                if status in (401, 403) or status in (404, 405) or 300 <= status < 400:
                    hint = " (the key is read from $%s)" % KEY_VARIABLE if status in (401, 403) else ""
                    raise ClientError("%s %s: %s%s" % (method, path, refused, hint))
                if status not in AGAIN:
                    raise refused
                wait = _retry_after(headers, wait)
                if status == 500 and attempt >= 2:
                    raise refused   # it is this request that breaks it
            if attempt < self.retries:
                with self._lock:
                    self.retried += 1
                if self.stop.wait(wait):
                    raise ClientError("stopped")
        raise ClientError("%s %s at %s:%d: %s, after %d tries" % (method, path, self.host, self.port, trouble, self.retries + 1))

    def _json(self, path: str, data: bytes) -> dict[str, Any]:
        try:
            doc = json.loads(data)
        except ValueError:
            doc = None
        if not isinstance(doc, dict):
            raise ClientError("%s: expected a JSON object, got %r" % (path, data[:80]))
        return doc

    def close(self) -> None:
        """Ends waits and requests under way."""
        self.stop.set()
        with self._lock:
            for c in self._all:
                if c.sock is not None:
                    try:
                        c.sock.shutdown(socket.SHUT_RDWR)   # wakes a thread that reads
                    except OSError:
                        pass


def _refusal(status: int, data: bytes) -> Refused:
    try:
        error = json.loads(data)["error"]
        return Refused(status, str(error.get("code") or error.get("type")), str(error.get("message")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Refused(status, "http_%d" % status, data[:80].decode("utf-8", "replace"))


def _retry_after(headers: http.client.HTTPMessage, default: float) -> float:
    """Seconds, or a date, within LONGEST_WAIT_S."""
    value = (headers.get("Retry-After") or "").strip()
    try:
        seconds = float(value)
    except ValueError:
        when = email.utils.parsedate_tz(value)
        if when is None:
            return default
        seconds = email.utils.mktime_tz(when) - time.time()
    return min(LONGEST_WAIT_S, max(0.0, seconds)) if seconds == seconds else default
