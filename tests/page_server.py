"""A folder and a few pages over HTTP, and what one of them posts from headless Chromium."""

from __future__ import annotations

import functools
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from data import missing
from sparrow.device.chromium import HEADERS, start_chromium
from sparrow.errors import BadInput


class Server:
    """Files of a folder and a few pages; waits for what a page posts."""

    def __init__(
        self, folder: Path, pages: dict[str, bytes], isolated: bool, policy: str = ""
    ) -> None:
        self.answer: Any = None
        self.done = threading.Event()
        server = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                page = pages.get(self.path.split("?")[0])
                if page is None:
                    super().do_GET()
                    return
                self.send_response(200)
                script = self.path.endswith(".mjs")
                self.send_header("Content-Type", "text/javascript" if script else "text/html")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def do_POST(self) -> None:
                server.answer = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(204)
                self.end_headers()
                server.done.set()

            def end_headers(self) -> None:
                for name, value in HEADERS.items() if isolated else ():
                    self.send_header(name, value)
                if policy:
                    self.send_header("Content-Security-Policy", policy)
                super().end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        handler = functools.partial(Handler, directory=str(folder))
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def in_chromium(
    folder: Path,
    profile: Path,
    pages: dict[str, bytes],
    page: str,
    isolated: bool = True,
    policy: str = "",
) -> Any:
    server = Server(folder, pages, isolated, policy)
    url = f"http://127.0.0.1:{server.http.server_port}{page}"
    try:
        process = start_chromium(url, profile)
    except BadInput as e:
        missing(str(e))
        raise
    try:
        assert server.done.wait(90), "the page never answered"
    finally:
        process.kill()
        process.wait()
        server.http.shutdown()
        server.http.server_close()
    return server.answer
