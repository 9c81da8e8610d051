"""A server with the routes that tools/eval asks, whose answers and troubles a check decides."""
import http.server
import json
import socket
import struct
import threading

CARD = {"id": "fake", "object": "model.card", "fingerprint": "fp_1", "notice": "a fake"}


class FakeServer:
    """answer(body, times) -> (status, JSON, headers), or None: the connection is reset. `body` is the request, `times` how often its
    question has been asked before."""

    def __init__(self, answer):
        self.answer, self.asked, self.lock = answer, {}, threading.Lock()
        self.card, self.auth = dict(CARD), []
        self.drops = False      # close kept connections without a word
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def send(self, status, value, headers=()):
                data = json.dumps(value).encode()
                self.send_response(status)
                for k, v in (("Content-Type", "application/json"), ("Content-Length", str(len(data))), *headers):
                    self.send_header(k, v)
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                self.send(200, {"/v1/models": {"data": [{"id": "fake"}]}, "/v1/models/fake/card": fake.card,
                                "/openapi.json": {"info": {"version": "9"}}}[self.path])

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                key = json.dumps({k: v for k, v in body.items() if k != "image"}, sort_keys=True)
                with fake.lock:
                    fake.auth.append(self.headers.get("Authorization"))
                    times = fake.asked.get(key, 0)
                    fake.asked[key] = times + 1
                reply = fake.answer(body, times)
                if reply is None:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send(*reply)
                self.close_connection = fake.drops

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *args):
                pass        # a connection that was reset

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *why):
        self.server.shutdown()
        self.server.server_close()

    def times(self):
        """How often each question was asked, most first."""
        return sorted(self.asked.values(), reverse=True)


def text(value):
    return 200, {"text": value, "finish_reason": "stop", "usage": {"prompt_tokens": 3, "completion_tokens": 1}}, ()


def error(status, code, **headers):
    return status, {"error": {"message": "no", "type": "t", "code": code, "param": None}}, tuple(
        (k.replace("_", "-"), v) for k, v in headers.items())
