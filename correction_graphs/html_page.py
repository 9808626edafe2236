"""The frame of the pages that show a run: nothing in them runs or loads, and what models wrote is escaped.

Texts of models may hold anything, so none gets into a page but through `escaped`, which `element` calls by itself.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

# Surrogates cannot be written to a file, and control characters but tab and newline have no place in a text.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """Return the text with plain line ends, and with a replacement for what cannot be shown."""
    return UNPRINTABLE.sub("\ufffd", re.sub(r"\r\n?", "\n", text))


class Html(str):
    """Text that is HTML already, as against text that is to be escaped."""

    __slots__ = ()


def escaped(text: str) -> Html:
    """Return HTML that shows the text, whatever is in it; HTML is returned as it is."""
    return text if isinstance(text, Html) else Html(html.escape(printable(text)))


def element(name: str, *inside: str, **attributes: str) -> Html:
    """Return an element. All that is inside and is not `Html` gets escaped, and so do the values of attributes.

    Args:
        name: Its tag.
        *inside: Texts and elements.
        **attributes: Its attributes; an underscore at the end of a name is dropped (`class_`), and so is an attribute
            without a value.
    """
    given = "".join(f' {key.rstrip("_")}="{escaped(value)}"' for key, value in attributes.items() if value)
    return Html(f"<{name}{given}>{''.join(map(escaped, inside))}</{name}>")


def section(title: str, *inside: str) -> Html:
    """Return a part of a page under a heading of its own."""
    return element("section", element("h2", title), *inside)


def block(text: str, *, boxed: bool = False) -> Html:
    """Return a text as it stands, line by line, in a box if it is `boxed`."""
    # The text decides which way it runs, and turns nothing outside of it around.
    return element("div", text or "(empty)", class_="text boxed" if boxed else "text", dir="auto")


def folded(title: str, *inside: str, unfolded: bool = False) -> Html:
    """Return something that a click on its title shows and hides."""
    return element("details", element("summary", title), *inside, **{"open": "open"} if unfolded else {})


def table(facts: Iterable[tuple[str, str]]) -> Html:
    """Return facts, each with its name."""
    return element("dl", *(part for name, fact in facts for part in (element("dt", name), element("dd", fact))))


def page(title: str, *body: str, style: str = "") -> str:
    """Return a whole page.

    Args:
        title: Of the window.
        *body: Texts and elements.
        style: What this page has in addition to the style of all. Colours: `--page`, `--card`, `--ink`, `--faint`,
            `--line`, `--passed`, `--failed` and `--unclear`.
    """
    head = element("head", _HEAD, Html(f"<style>{_STYLE}{style}</style>"), element("title", title))
    return f"<!doctype html>\n{element('html', head, element('body', *body), lang='en')}\n"


# A second lock besides escaping: nothing may run, and nothing may be loaded.
_HEAD = Html(
    '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
)

_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1c2026; --faint: #5a6472; --line: #d5dae1;
  --passed: #11703a; --failed: #b3261e; --unclear: #8a5300; }
@media (prefers-color-scheme: dark) { :root { --page: #12151a; --card: #1b2027; --ink: #e6e9ee; --faint: #9aa5b4;
  --line: #343c47; --passed: #5cd68a; --failed: #ff8f85; --unclear: #f0b64f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem; max-width: 100rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0; }
p { margin: .5rem 0; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; tab-size: 4; }
.boxed { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem; }
.faint { color: var(--faint); font-size: .875rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: 1rem 0; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
.passed { color: var(--passed); }
.failed { color: var(--failed); }
.unclear { color: var(--unclear); }
summary { cursor: pointer; font-weight: 600; font-size: .9rem; }
@media (max-width: 40rem) { body { padding: .75rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; } }
"""
