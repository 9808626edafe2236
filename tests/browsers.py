"""A real browser without a window, a site on this machine, and texts that try to get out of their page."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
QUIET = ("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync", "hide-scrollbars")

HOSTILE = (
    "<script>document.title = 'ran'</script></style></div></article></body>"
    "<img src=/loaded onerror=\"document.title = 'ran'\"><link rel=stylesheet href=/loaded>"
    "<svg onload=\"document.title = 'ran'\"><style>* { background: url(/loaded) }</style><b>bold</b> &lt; <!-- "
    "\u202edlrow שלום 你好 🎉 e\u0301 \x00"
)
ATTACK = "<script>document.title = 'ran'</script><img src='/loaded'>"


Browse = Callable[..., str]


def browser(profile: Path) -> Browse:
    """A browser without a window, which returns the document as it is in the end. Skips the test if there is none."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser is installed; looked for {', '.join(BROWSERS)}")

    def run(address: str, *flags: str, width: int = 1400) -> str:
        flags = (
            "headless",
            "no-sandbox",
            "disable-gpu",
            f"window-size={width},900",
            f"user-data-dir={profile}",
            *flags,
        )
        command = [program, *(f"--{flag}" for flag in (*flags, *QUIET)), "--dump-dom", address]
        done = subprocess.run(command, capture_output=True, timeout=120, check=True)
        return done.stdout.decode()

    return run


class Site:
    """Serves pages on this machine, and keeps what was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                self.send_response(200 if self.path in site.pages else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(site.pages.get(self.path, "").encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def address(self, path: str, page: str) -> str:
        self.pages[path] = page
        return f"http://127.0.0.1:{self.server.server_port}{path}"


@contextmanager
def serving() -> Iterator[Site]:
    """A site while the context lasts."""
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever, args=(0.01,))
    thread.start()
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


def title_of(document: str) -> str:
    return html.unescape(re.search("<title>(.*?)</title>", document, re.DOTALL)[1])


def luminance(color: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
