"""Run a WebAssembly module in headless Chromium.

A page asks this process for requests and posts the answers: the bytes that runtime/runner.c reads
and writes. No driver of browsers is needed for that.
"""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sparrow.device.build import NATIVE
from sparrow.device.remote import RemoteLibrary
from sparrow.device.wire import Wire
from sparrow.errors import BadBundle, BadInput

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
    "--no-first-run",
    # else a headless browser ends when the page has loaded
    "--remote-debugging-port=0",
)
# A page of an isolated origin may share memory between threads, and has a finer clock.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-store",
}
PAGE = b"""<!doctype html><meta charset="utf-8"><title>Sparrow</title><script type="module">
import { serve } from './runner.mjs';
let left = new Uint8Array();
const read = async (n) => {
  while (left.length < n) {
    const more = new Uint8Array(await (await fetch('./requests')).arrayBuffer());
    if (more.length === 0) return null;
    const joined = new Uint8Array(left.length + more.length);
    joined.set(left);
    joined.set(more, left.length);
    left = joined;
  }
  const found = left.slice(0, n);
  left = left.subarray(n);
  return found;
};
const post = (to, body) => fetch(to, { method: 'POST', body });
try {
  const module = await WebAssembly.compileStreaming(fetch('./module.wasm'));
  await serve(module, { read, write: (parts) => post('./answers', new Blob(parts)) });
} catch (e) {
  await post('./failed', String(e.message));
}
</script>"""


def find_chromium() -> str:
    """The browser's program.

    Raises:
        BadInput: There is none.
    """
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise BadInput("Chromium is not installed", hint="install it, or use --device node")


def start_chromium(url: str, folder: Path) -> subprocess.Popen[bytes]:
    """Open a page in a browser of its own, whose profile lies in ``folder``."""
    sandbox = ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
    command = [find_chromium(), *FLAGS, *sandbox, f"--user-data-dir={folder}", url]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def chromium_library(path: Path) -> RemoteLibrary:
    """A model module in Chromium.

    Raises:
        BadInput: Chromium is not installed.
        BadBundle: The file is no model module.
    """
    find_chromium()
    return _Library(path, (), timed=True)


class _Library(RemoteLibrary):
    def connect(self, before: Sequence[str] = ()) -> _Page:
        return _Page(self.path)


class _Page(Wire):
    """The two streams of a page that serves a module."""

    def __init__(self, path: Path) -> None:
        self.what = str(path)
        self._requests: queue.Queue[bytes] = queue.Queue()
        self._answers = bytearray()
        self._failure = ""
        self._more = threading.Condition()
        self._files = {
            "/": ("text/html", PAGE),
            "/module.wasm": ("application/wasm", path.read_bytes()),
            **{
                f"/{p.name}": ("text/javascript", p.read_bytes())
                for p in (NATIVE / "web").glob("*.mjs")
            },
        }
        server = _Server(("127.0.0.1", 0), partial(_Handler, weakref.ref(self)))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        folder = Path(tempfile.mkdtemp(prefix="sparrow-"))
        self.process = start_chromium(f"http://127.0.0.1:{server.server_port}/", folder)
        self._end = weakref.finalize(self, _end, self.process, self._requests, server, folder)

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        self._requests.put(b"".join(parts))

    def close(self) -> None:
        self._end()

    def read(self, size: int) -> bytes:
        with self._more:
            while len(self._answers) < size:
                if self._failure or self.process.poll() is not None:
                    said = self._failure or f"the browser's code is {self.process.returncode}"
                    raise BadBundle(f"{self.what}: the page that runs it ended: {said}")
                self._more.wait(0.5)
            found = bytes(self._answers[:size])
            del self._answers[:size]
        return found

    def take(self) -> bytes:
        """What the page has not seen yet; waits for some."""
        parts = [self._requests.get()]
        while parts[-1] and not self._requests.empty():
            parts.append(self._requests.get())
        return b"".join(parts)

    def give(self, answer: bytes) -> None:
        """An answer of the page."""
        with self._more:
            self._answers += answer
            self._more.notify_all()

    def fail(self, message: str) -> None:
        """The page cannot go on."""
        with self._more:
            self._failure = message.split("\n")[0]
            self._more.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, page: weakref.ref[_Page], *args: object) -> None:
        self._ref = page
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        page = self._ref()
        if page is None or (self.path != "/requests" and self.path not in page._files):
            self.send_error(404)
        elif self.path == "/requests":
            self._send("application/octet-stream", page.take())
        else:
            self._send(*page._files[self.path])

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        page = self._ref()
        if page is not None and self.path == "/answers":
            page.give(body)
        elif page is not None:
            page.fail(body.decode("utf-8", "replace"))
        self._send("text/plain", b"")

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are no news."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that ends may leave a request unanswered."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _end(
    process: subprocess.Popen[bytes],
    requests: queue.Queue[bytes],
    server: ThreadingHTTPServer,
    folder: Path,
) -> None:
    requests.put(b"")
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    server.shutdown()
    server.server_close()
    shutil.rmtree(folder, ignore_errors=True)
