"""A web server on this machine that answers as a test scripts it, and an empty cache."""

import hashlib
import os
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from detlite.utils.download import URLHandler

DATA = bytes(range(256)) * 4000


class ScriptedAnswer(BaseHTTPRequestHandler):
    """Answers each request by the server's next step, the last one again and again."""

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, dict(self.headers)))
        step = server.steps.pop(0) if len(server.steps) > 1 else server.steps[0]
        step(self)

    def log_message(self, *_):
        pass

    def send(self, status, body=b"", **headers):
        """Answer with a body; ``Content_Range=...`` is the header of that name with a hyphen."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)
        self.server.sent += len(body)


class ScriptedServer(ThreadingHTTPServer):
    """Makes the steps, counts the requests and the bytes of bodies."""

    data = DATA
    half = len(DATA) // 2
    digest = hashlib.sha256(DATA).hexdigest()

    def __init__(self):
        super().__init__(("127.0.0.1", 0), ScriptedAnswer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests, self.sent, self.steps = [], 0, [self.file()]

    @property
    def hashed(self):
        """A name that tells the hash of the data."""
        return f"weights-{self.digest[:8]}.pth"

    @property
    def ranges(self):
        """What each request asked in its Range."""
        return [headers.get("Range") for _, headers in self.requests]

    def file(
        self, data=DATA, *, etag='"1"', date="", ranges=True, stop=None, reset=False, honest=True
    ):
        """A step that sends a file or its rest, and hangs up at byte ``stop`` of it.

        With ``reset=True`` it hangs up as a crash does. With ``honest=False`` it looks at Range
        only, whatever If-Range asks.
        """

        def step(request):
            asked = request.headers.get("Range") if ranges else None
            if asked and honest and request.headers["If-Range"] not in (etag, date):
                asked = None
            begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            headers = {"ETag": etag, "Last_Modified": date}
            headers = {name: value for name, value in headers.items() if value}
            if asked and begin >= len(data):
                return request.send(416, Content_Range=f"bytes */{len(data)}", **headers)
            if asked:
                headers["Content_Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            headers["Content_Length"] = len(data) - begin
            request.send(206 if asked else 200, data[begin:stop], **headers)
            if reset:
                linger = struct.pack("ii", 1, 0)
                request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                request.rfile.close()
                request.connection.close()

        return step

    def refusal(self, status, **headers):
        """A step that answers with a status and nothing of use."""
        return lambda request: request.send(status, b"sorry", **headers)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache's folder, not yet there; no proxy stands between."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def cached(cache):
    """Names of the files in the cache, locks aside."""
    return lambda: {p.name for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"}


@pytest.fixture
def server(cache):
    """The scripted server at work."""
    with ScriptedServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def fetch(cache):
    """Brings a URL into the cache without pauses between the tries."""

    def fetch(url, *, tries=3, timeout=10, **kwargs):
        handler = URLHandler(retry_pauses=[0] * (tries - 1), timeout=timeout)
        return Path(handler._get_local_path(url, **kwargs))

    return fetch
