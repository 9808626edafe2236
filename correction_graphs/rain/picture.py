"""A RAIN search as a page: the reply with what each part of it was worth, and the tree as it was searched.

`RainResult.to_html` calls this. The tree is drawn from top to bottom: the committed token sets are the trunk, and what
was rewound branches off where the search left it. A line is the wider the more walks went along it, and a value has a
number and a colour, from orange (-1) over grey to blue (1), which the colour-blind can tell apart, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from correction_graphs.html_page import Html, block, element, folded, page, printable, section, table

if TYPE_CHECKING:  # `results` imports this module, in the method that calls it
    from correction_graphs.results import RainCommit, RainNode, RainResult, RainStopReason

_EXPLAINED: dict[RainStopReason, str] = {
    "stop": "The model ended the reply, or a stop text did.",
    "length": "The reply has as many tokens as it may have.",
    "context": "The model's context has no room for more.",
    "deadline": "The time was over. This is the best there was by then.",
    "forwarded_tokens": "As many tokens were computed as may be. This is the best there was by then.",
    "failed": "Something ended the search before its time. This is what there was by then.",
}
_TONES = {"stop": "passed", "failed": "failed"}
_UNFOLDED = 150  # branches that are shown at once; where there are more, each step's are unfolded by a click
_SHADES = 4  # of either side of 0
_WIDEST = 7.0  # pixels of a line

_STYLE = """
:root { --trunk: #3a4452; --branch: #b4bdc8;
  --v0: #f5a04f; --v1: #f9bf86; --v2: #fcd9b5; --v3: #fbe9d6; --v4: #e6eaee; --v5: #d9e8f6; --v6: #b9d6f1;
  --v7: #90bdea; --v8: #66a3e0; }
@media (prefers-color-scheme: dark) { :root { --trunk: #b9c3d0; --branch: #4c5766;
  --v0: #934300; --v1: #743a0b; --v2: #573313; --v3: #40301f; --v4: #333a44; --v5: #263a52; --v6: #1f456f;
  --v7: #1b508c; --v8: #185ca8; } }
body { max-width: 64rem; }
mark { color: var(--ink); background: var(--v, none); border-radius: .2rem; box-decoration-break: clone;
  -webkit-box-decoration-break: clone; border-right: 2px solid var(--card); }
mark:hover { outline: 2px solid var(--ink); }
.scale { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; align-items: center; }
.scale span { display: inline-flex; align-items: center; gap: .4rem; }
.scale i { display: inline-block; width: 1.1rem; height: .8rem; background: var(--v); margin-right: -.4rem; }
.scale i:last-of-type { margin-right: 0; }
.scale b { display: inline-block; width: 1.5rem; background: var(--trunk); border-radius: 1rem; }
.scale s { display: inline-block; width: 1.5rem; height: 2px; background: var(--branch); }
ul, ol { list-style: none; margin: 0; padding: 0; }
.row { display: flex; gap: .5rem; align-items: baseline; min-width: 0; }
.row:hover .said { text-decoration: underline; }
.said { min-width: 0; flex: 0 1 auto; white-space: pre-wrap; overflow-wrap: anywhere; }
.value { flex: none; min-width: 3.4rem; text-align: center; border-radius: 1rem; padding: 0 .45rem;
  background: var(--v); font-size: .8rem; line-height: 1.35rem; font-variant-numeric: tabular-nums; }
.visits { flex: none; margin-left: auto; color: var(--faint); font-size: .8rem; font-variant-numeric: tabular-nums; }
.trunk > li { position: relative; padding: 0 0 .7rem 2rem; }
.trunk > li::before { content: ""; position: absolute; left: calc(.75rem - var(--w) / 2); width: var(--w); top: .75rem;
  bottom: -.75rem; background: var(--trunk); z-index: 1; }
.trunk > li:last-child::before { display: none; }
.trunk > li > .row::before { content: ""; position: absolute; left: .2rem; top: .2rem; width: 1.1rem; height: 1.1rem;
  border-radius: 50%; background: var(--v, var(--card)); border: 2px solid var(--trunk); z-index: 2; }
.committed > .row > .said { font-weight: 600; }
details, .alone { margin-top: .15rem; }
details > summary, .alone { font-weight: 400; color: var(--faint); font-size: .85rem; }
.left li { position: relative; padding: .2rem 0 0 1.5rem; color: var(--faint); }
.left .value { color: var(--ink); }
.left .said { white-space: pre; overflow: hidden; text-overflow: ellipsis; }
.left li::before { content: ""; position: absolute; left: .2rem; top: -.45rem; width: 1rem; height: 1.35rem;
  border: solid var(--branch); border-width: 0 0 var(--w) var(--w); border-bottom-left-radius: .8rem; }
.left li:not(:last-child)::after { content: ""; position: absolute; left: .2rem; top: 0; bottom: 0; width: 1px;
  background: var(--branch); }
details > .left > li::before { left: -1.25rem; width: 2.5rem; }
details > .left > li::after { display: none; }
.deep > li { padding-left: 0; }
.deep > li::before { display: none; }
@media (max-width: 40rem) { .trunk > li { padding-left: 1.7rem; } .left li { padding-left: 1rem; }
  .left li::before { width: .6rem; } details > .left > li::before { left: -.95rem; width: 1.7rem; }
  .deep > li { padding-left: 0; } .row { gap: .35rem; } }
"""


def to_html(result: RainResult, question: str = "") -> str:
    """Return a search as one HTML page, which loads nothing and runs nothing.

    Args:
        result: The search.
        question: What was asked, to be shown on top.
    """
    title = f"{result.stop_reason}: {question.strip()[:60] or 'RAIN'}"
    return page(title, *_body(result, question), style=_STYLE)


def _body(result: RainResult, question: str) -> Iterator[Html]:
    yield element("p", "RAIN: search, judge, rewind", class_="faint")
    yield element("h1", result.stop_reason, class_=_TONES.get(result.stop_reason, "unclear"))
    yield element("p", _EXPLAINED[result.stop_reason])
    if question.strip():
        yield section("Question", block(question, boxed=True))
    yield section("Reply", element("div", *_marked(result), class_="text boxed reply", dir="auto"))
    yield table(_facts(result))
    if result.commits:
        yield section("The search", _scale(), _tree(result))


def _marked(result: RainResult) -> Iterator[str]:
    """Yield the reply in its token sets, each with its value."""
    written = "".join(commit.text for commit in result.commits)
    for commit in result.commits:
        if commit.text:
            yield element("mark", commit.text, class_=_shade(commit.value), title=_told(commit))
    if result.text.startswith(written):  # what may begin a stop text is in no commit yet
        yield result.text[len(written) :]
    if not (result.text or written):
        yield "(empty)"


def _facts(result: RainResult) -> list[tuple[str, str]]:
    """Return what there is to tell about the search as a whole, each with its name."""
    used = result.template
    speed = f", {result.output_tokens / result.seconds:.1f} tokens of the reply a second" if result.seconds else ""
    tried = f"{_count(result.iterations, 'iteration')}, {_count(result.evaluations, 'text')} judged"
    computed = _count(result.forwarded_tokens, "token")
    facts = [
        ("Value", "" if result.value is None else _number(result.value)),
        ("Reply", f"{_count(result.output_tokens, 'token')} in {_count(len(result.commits), 'token set')}"),
        ("Search", f"{tried}, {_count(result.rewinds, 'rewind')}"),
        ("Computed", f"{computed}, {result.judge_tokens:,} of them by the judge; prompt: {result.prompt_tokens:,}"),
        ("Time", f"{result.seconds:.1f} s{speed}"),
        ("Template", str(used) if used else ""),
        ("Template SHA-256", used.sha256 if used else ""),
        ("Error", result.error or ""),
    ]
    return [(name, fact) for name, fact in facts if fact]


def _scale() -> Html:
    shades = (element("i", class_=f"v{shade}") for shade in range(2 * _SHADES + 1))
    widths = (element("b", style=f"height:{width:g}px") for width in (1.5, 4, _WIDEST))
    return element(
        "p",
        element("span", "value ", _number(-1), *shades, _number(1)),
        element("span", *widths, "committed; the wider, the more walks"),
        element("span", element("s"), "rewound"),
        class_="scale faint",
    )


# The tree


def _tree(result: RainResult) -> Html:
    branches = sum(_size(commit.searched) - 1 for commit in result.commits)
    unfolded = branches <= _UNFOLDED
    rows: list[Html] = [element("span", "the prompt", class_="said faint"), *map(_committed, result.commits)]
    stems = [None, *result.commits]
    items = []
    for row, stem, following in zip(rows, stems, [*result.commits, None], strict=True):
        left = [] if following is None else [_left(following, unfolded=unfolded)]
        line = element("div", row, class_="row") if stem is None else row
        width = "" if following is None else f"--w:{_width(following.visits, following.searched)}px"
        shade = "" if stem is None else f"committed {_shade(stem.value)}"
        items.append(element("li", line, *left, class_=shade, style=width))
    return element("ol", *items, class_="trunk")


def _committed(commit: RainCommit) -> Html:
    return _row(commit.text or _ending(commit), commit.value, commit.visits, _told(commit))


def _left(commit: RainCommit, *, unfolded: bool) -> Html:
    """Return what was left behind on the way to a commit."""
    rewound = [node for node in commit.searched if not node.committed]
    told = (
        f"{_count(commit.iterations, 'iteration')}, {commit.evaluations:,} judged, ended by {_REASONS[commit.reason]}"
    )
    if not rewound:
        return element("p", f"nothing rewound: {told}", class_="alone")
    inside = _branches(rewound, max(node.visits for node in commit.searched))
    return folded(f"{_count(_size(rewound), 'branch', 'branches')} left: {told}", inside, unfolded=unfolded)


_REASONS = {
    "accepted": "a value high enough",
    "iterations": "the number of iterations",
    "deadline": "the deadline",
    "forwarded_tokens": "the number of tokens",
}
_DEEPEST = 6  # branches further down are indented no more


def _branches(nodes: Iterable[RainNode], most: int, depth: int = 0) -> Html:
    return element(
        "ul", *(_branch(node, most, depth) for node in nodes), class_="left deep" if depth > _DEEPEST else "left"
    )


def _branch(node: RainNode, most: int, depth: int) -> Html:
    judged = "" if node.judged is None else f", judged {_number(node.judged)}"
    told = f"{node.text}\nvalue {_number(node.value)}{judged}, {_count(node.visits, 'visit')}, prior {node.prior:.2f}"
    shared = f", {node.n:.1f} with those of similar ones" if f"{node.n:.1f}" != f"{node.visits:.1f}" else ""
    below = [_branches(node.children, most, depth + 1)] if node.children else []
    row = _row(node.text or "(no text)", node.value, node.visits, told + shared)
    return element("li", row, *below, class_=_shade(node.value), style=f"--w:{_scaled(node.visits, most)}px")


def _row(text: str, value: float, visits: int, told: str) -> Html:
    shown = " ".join(printable(text).split("\n")).strip() or "⏎" * text.count("\n") or "(blank)"
    return element(
        "div",
        element("span", _number(value), class_=f"value {_shade(value)}"),
        element("bdi", shown, class_="said"),
        element("span", f"{visits:,}\N{MULTIPLICATION SIGN}", class_="visits"),
        class_="row",
        title=told,
    )


def _told(commit: RainCommit) -> str:
    node = next((node for node in commit.searched if node.committed), None)
    judged = "" if node is None or node.judged is None else f", judged {_number(node.judged)}"
    prior = "" if node is None else f", prior {node.prior:.2f}"
    return f"{commit.text}\nvalue {_number(commit.value)}{judged}, {_count(commit.visits, 'visit')}{prior}"


def _ending(commit: RainCommit) -> str:
    return "(held back until the next)" if commit.tokens else "(the end)"


def _size(nodes: Sequence[RainNode]) -> int:
    return sum(1 + _size(node.children) for node in nodes)


def _width(visits: int, siblings: Sequence[RainNode]) -> str:
    return _scaled(visits, max([visits, *(node.visits for node in siblings)]))


def _scaled(visits: int, most: int) -> str:
    """Return the width of a line, from 1.5 for the fewest visits; by area, so that few still show."""
    return f"{max(1.5, _WIDEST * (visits / max(most, 1)) ** 0.5):.1f}"


def _shade(value: float) -> str:
    return f"v{round((min(1.0, max(-1.0, value)) + 1) * _SHADES)}"


def _number(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


_STYLE += "".join(f".v{shade} {{ --v: var(--v{shade}); }}\n" for shade in range(2 * _SHADES + 1))
