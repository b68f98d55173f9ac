"""A server on 127.0.0.1 that plays public addresses; it can cut the line after so many bytes."""

import hashlib
import re
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Files over HTTP. ``cuts`` are the bytes after which the next answers break off."""

    def __init__(self):
        self.files = {}
        self.cuts = []
        self.ranges = True  # whether Range is understood
        self.tags = True  # whether answers carry an ETag
        self.hold = None  # an Event to wait for at a cut, instead of cutting at once
        self.asked = []  # (path, Range or None) of every request
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, handler):
        path = handler.path.lstrip("/").split("?")[0]
        wanted = handler.headers.get("Range")
        self.asked.append((path, wanted))
        if path not in self.files:
            handler.send_error(404)
            return
        content = self.files[path]
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if wanted and self.ranges and handler.headers.get("If-Range", tag) == tag:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        if start >= len(content) > 0:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - start))
        if self.tags:
            handler.send_header("ETag", tag)
        handler.send_header("Date", formatdate(usegmt=True))
        handler.end_headers()
        cut = self.cuts.pop(0) if self.cuts else None
        handler.wfile.write(content[start:] if cut is None else content[start : start + cut])
        if cut is not None and self.hold is not None:
            handler.wfile.flush()
            self.hold.wait(30)
