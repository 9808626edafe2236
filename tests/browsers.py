"""A real browser without a window, a site on this machine, texts that try to get out of their page, and checks of it."""

from __future__ import annotations

import html
import json
import re
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

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
LONG = "x = " + "unbreakable" * 30

Browse = Callable[..., str]
Probe = Callable[..., dict[str, Any]]


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


def unlocked(page: str) -> str:
    """The page without the policy that forbids scripts: what keeps texts from running there is the escaping alone."""
    return re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)


_SEEN = """
const shown = (css) => Array.from(document.querySelectorAll(css));
const ground = (one) => {
  for (; one; one = one.parentElement) {
    const color = getComputedStyle(one).backgroundColor;
    if (color !== "rgba(0, 0, 0, 0)") return color;
  }
};
const told = { window: innerWidth, content: document.documentElement.scrollWidth };
"""
_TELL = """
const out = document.createElement("output");
out.textContent = JSON.stringify(told);
document.body.append(out);
"""


def prober(browse: Browse, page: str, script: str, path: Path) -> Probe:
    """Tells what the page is like in a window: what a script at its end puts into `told`. Each look is taken once."""
    probing = f"<script>{_SEEN}{script}{_TELL}</script></body>"
    path.write_text(unlocked(page).replace("</body>", probing), encoding="utf-8")
    known: dict[tuple[int, bool], dict[str, Any]] = {}

    def probe(width: int = 1400, *, dark: bool = False) -> dict[str, Any]:
        if (width, dark) not in known:
            document = browse(path.as_uri(), f"blink-settings=preferredColorScheme={int(not dark)}", width=width)
            told = re.search("<output>(.*?)</output>", document, re.DOTALL)
            assert told is not None, "the script did not come to its end"
            known[width, dark] = json.loads(html.unescape(told[1]))
        return known[width, dark]

    return probe


def nothing_runs_or_loads(browse: Browse, site: Site, page: str, title: str) -> None:
    """Check that a page with hostile texts is only shown, even without its policy, and that the policy is a lock."""
    for name, each in (("as it is", page), ("without its policy", unlocked(page))):
        site.asked.clear()
        assert title_of(browse(site.address("/page", each))).startswith(title), name
        assert [path for path in site.asked if path != "/favicon.ico"] == ["/page"], name

    assert title_of(browse(site.address("/locked", page.replace("</body>", f"{ATTACK}</body>")))).startswith(title)
    assert "/loaded" not in site.asked
    open_to_it = unlocked(page).replace("</body>", f"{ATTACK}</body>")
    assert title_of(browse(site.address("/unlocked", open_to_it))) == "ran", "or the test could not tell"
    assert "/loaded" in site.asked


def a_picture_is_taken(browse: Browse, site: Site, page: str, picture: Path) -> None:
    """Check that a page can be put into a picture."""
    browse(site.address("/page", page), f"screenshot={picture}", width=600)

    data = picture.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (600, 900)
    assert len(data) > 10_000, "an empty page takes less"


def contrast(ink: str, ground: str) -> float:
    """Contrast of two colours as WCAG 2.2 defines it; level AA asks for 4.5."""
    darker, lighter = sorted(map(luminance, (ink, ground)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
