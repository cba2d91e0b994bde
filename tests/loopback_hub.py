"""A server on loopback that speaks as much of the Hugging Face hub as `core get` asks for, and fails on demand."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

REPOSITORY = "kjj0/fineweb10B-gpt2"
NAMES = ["fineweb_val_000000.bin", "fineweb_train_000001.bin", "fineweb_train_000002.bin"]


def shard(seed, tokens=3000):
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, tokens
    return header.tobytes() + np.random.default_rng(seed).integers(0, 50257, tokens).astype("<u2").tobytes()


class Hub:
    """What the server has and how it behaves. files: name -> contents; asked: (method, path, range) of requests."""

    def __init__(self):
        self.files = {name: shard(i) for i, name in enumerate(NAMES)}
        self.asked = []
        self.drop_after = None  # bytes of a file's answer, once
        self.change = {}  # listing entry -> what to say instead
        self.ranges = True
        self.page = None  # a sign-in page in place of everything
        self.page_for = ("GET", "POST")
        self.silence = ()  # methods that get no answer
        self.silent = threading.Event()  # ends a silence

    def describe(self, name):
        data = self.files[name]
        entry = {"type": "file", "path": name, "size": len(data), "oid": git_hash(data)}
        if not name.endswith(".json"):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 100}
        return {**entry, **self.change}


def git_hash(data):
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        hub = self.server.hub
        if "POST" in hub.silence:
            hub.silent.wait()
            return
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        hub.asked.append(("POST", self.path, None))
        names = urllib.parse.parse_qs(body).get("paths", [])
        files = [hub.describe(name) for name in names if name in hub.files]
        self.answer(200, json.dumps(files).encode(), "application/json")

    def do_GET(self):
        hub = self.server.hub
        if "GET" in hub.silence:
            hub.silent.wait()
            return
        hub.asked.append(("GET", self.path, self.headers.get("Range")))
        data = hub.files[self.path.rpartition("/")[2]]
        begin = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0]) if hub.ranges else 0
        headers = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if hub.ranges else {}
        self.answer(206 if hub.ranges else 200, data[begin:], "application/octet-stream", headers)

    def answer(self, code, data, kind, headers=None):
        hub = self.server.hub
        if hub.page is not None and self.command in hub.page_for:
            code, data, kind, headers = 200, hub.page, "text/html", {}
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": len(data), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if hub.drop_after is not None and self.command == "GET":
            data, hub.drop_after = data[: hub.drop_after], None
        self.wfile.write(data)
        self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that has given up is what some tests are about."""


@contextlib.contextmanager
def serving():
    """A Hub that answers at its `url` until the block ends."""
    server = Server(("127.0.0.1", 0), Handler)
    server.hub = Hub()
    server.hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.hub
    finally:
        server.hub.silent.set()
        server.shutdown()
        server.server_close()
        thread.join()
