"""nginx in front of a daemon, for the framing cases: one worker, upstream connections kept alive (where smuggling matters)."""
import os
import shutil
import socket
import subprocess
import tempfile
import time

CONFIG = """
daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log error.log crit;
events { worker_connections 512; }
http {
    access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    client_max_body_size 24m; keepalive_timeout 2s; client_header_timeout 2s; client_body_timeout 2s; lingering_timeout 1s;
    upstream healthgpt { server 127.0.0.1:%d; keepalive 1; }
    server {
        listen 127.0.0.1:%d;
        underscores_in_headers on; ignore_invalid_headers off;
        location / {
            proxy_pass http://healthgpt; proxy_http_version 1.1; proxy_next_upstream off; proxy_buffering off;
            proxy_set_header Connection ""; proxy_set_header Host localhost;
            proxy_request_buffering %s;
        }
    }
}
"""


def program():
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class Nginx:
    def __init__(self, upstream, buffers):
        self.folder = tempfile.TemporaryDirectory()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        with open(os.path.join(self.folder.name, "nginx.conf"), "w") as f:
            f.write(CONFIG % (upstream, self.port, "on" if buffers else "off"))
        self.process = subprocess.Popen([program(), "-p", self.folder.name, "-c", "nginx.conf", "-e", "stderr"],
                                        stderr=subprocess.PIPE)

    def __enter__(self):
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except ConnectionRefusedError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("nginx: %r" % self.process.stderr.read()[-500:])
                time.sleep(0.01)

    def __exit__(self, *exc):
        self.process.terminate()
        self.process.wait(30)
        self.process.stderr.close()
        self.folder.cleanup()
