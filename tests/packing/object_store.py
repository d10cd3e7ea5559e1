"""An object store on this machine that knows as much of S3 as reading needs."""

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Objects(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path
    asked: list[str]

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        file = self.root / self.path.split("?")[0].lstrip("/")
        if not file.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = file.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(wanted[1]), int(wanted[2])) if wanted else (0, len(data) - 1)
        part = data[first : last + 1]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Last-Modified", "Tue, 01 Jan 2030 00:00:00 GMT")
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.end_headers()
        if body:
            self.asked.append(file.name)
            self.wfile.write(part)

    def log_message(self, *_):
        pass


@contextmanager
def object_store(root: Path):
    """Serve a folder, whose folders are buckets; yield a function that makes a URI, and the log."""
    handler = type("Objects", (_Objects,), {"root": root, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    try:
        yield (
            lambda path: (
                f"s3://key:secret@{path}?scheme=http&region=us-east-1&allow_bucket_creation=false"
                f"&endpoint_override=127.0.0.1%3A{port}"
            ),
            handler.asked,
        )
    finally:
        server.shutdown()
        server.server_close()
