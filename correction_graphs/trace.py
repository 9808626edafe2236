"""A finished run as a page or a text that a person can read: each answer, what was said of it, and what then changed.

`CacResult.to_html` and `CacResult.to_markdown` call this. Answers come from models and may hold anything, so no text
gets into a page but through `html_page`, and none into Markdown but through `fenced` or `code`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from correction_graphs.html_page import Html, block, element, folded, page, printable, section, table
from correction_graphs.text_changes import Change, changes

if TYPE_CHECKING:  # `results` imports this module, in the methods that call it
    from correction_graphs.results import CacResult, CacStatus, Round, Usage, Verdict, Vote

_EXPLAINED: dict[CacStatus, str] = {
    "passed": "The checker accepted the answer.",
    "exhausted": "No answer passed, and no further revision was allowed.",
    "plateau": "The model gave the same answer again, so another round promised nothing new.",
    "oscillation": "The model came back to an answer that it had given earlier.",
    "budget": "The budget allowed no further model call.",
    "unverified": "The answer stands without a verdict on it.",
    "failed": "Something went wrong before the run was done. This is what there was by then.",
}


def explained(result: CacResult) -> str:
    """Say in a sentence or two why a run ended, and what became of its answers."""
    why = _EXPLAINED[result.status]
    if not result.rounds:
        return f"{why} No answer was written."
    if result.chosen is None:
        return f"{why} None of the answers was chosen."
    return f"{why} Chosen: answer {result.chosen + 1} of {len(result.rounds)}."


def verdict_word(verdict: Verdict | Vote | None) -> str:
    """Return the word for a verdict: "passed", "failed", "unclear" or "not checked"."""
    return "not checked" if verdict is None else {True: "passed", False: "failed", None: "unclear"}[verdict.passed]


def scored(done: Round) -> str:
    """Tell the score of an answer and by how much it changed; "" without a score."""
    if done.verdict is None or done.verdict.score is None:
        return ""
    change = "" if done.score_change is None else f" ({done.score_change:+g})"
    return f"score {done.verdict.score:g}{change}"


def spent(usage: Usage, *, calls: bool = True) -> str:
    """Tell in a line what was spent.

    Args:
        usage: What was spent.
        calls: Whether to tell how many calls there were; of a single one that goes without saying.
    """
    cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
    told = [
        _calls(usage.model_calls) if calls else "",
        f"{usage.input_tokens} tokens in{cached}",
        f"{usage.output_tokens} out",
        f"{usage.seconds:.1f} s",
        f"{_calls(usage.unreported_calls)} without a count of tokens" if usage.unreported_calls else "",
        f"cost {usage.cost:.6g}" if usage.cost is not None else "",
    ]
    return ", ".join(filter(None, told))


def _calls(count: int) -> str:
    return f"{count} model call{'' if count == 1 else 's'}"


def _answers(result: CacResult) -> Iterator[tuple[Round, list[Change]]]:
    """Yield each round with its answer as changes from the answer before; those of the first are none."""
    before: str | None = None
    for done in result.rounds:
        answer = printable(done.answer)
        yield done, [Change("same", answer)] if before is None else changes(before, answer)
        before = answer


# HTML


_STYLE = """
:root { --new: #cdf2d8; --old: #fbdcd9; }
@media (prefers-color-scheme: dark) { :root { --new: #17482b; --old: #5a2320; } }
.rounds { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
article { display: flex; flex-direction: column; gap: .6rem; min-width: 0; background: var(--card);
  border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem; }
article.chosen { border-color: currentColor; box-shadow: 0 0 0 1px currentColor; }
article header { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
footer { margin-top: auto; border-top: 1px solid var(--line); padding-top: .5rem; color: var(--faint);
  font-size: .875rem; }
.word { border: 1px solid; border-radius: 1rem; padding: 0 .6rem; font-size: .875rem; font-weight: 600; }
.mark { font-size: .875rem; font-weight: 600; }
.not-checked { color: var(--faint); }
ins, del { color: var(--ink); }
ins { background: var(--new); text-decoration: underline; }
del { background: var(--old); text-decoration: line-through; user-select: none; -webkit-user-select: none; }
body:has(#removed:not(:checked)) del { display: none; }
details .text, details ul { margin: .35rem 0 0; padding-left: .75rem; border-left: 3px solid var(--line); }
ul { list-style: none; }
li { margin-bottom: .5rem; }
"""

_SWITCH = Html('<input type="checkbox" id="removed" checked>')


def to_html(result: CacResult, question: str = "") -> str:
    """Return a run as one HTML page, which loads nothing and runs nothing.

    Args:
        result: The run.
        question: What was asked, to be shown on top.
    """
    title = f"{result.status}: {question.strip()[:60] or 'Checking as Context'}"
    return page(title, *_body(result, question), style=_STYLE)


def _body(result: CacResult, question: str) -> Iterator[Html]:
    tone = {"passed": "passed", "failed": "failed"}.get(result.status, "unclear")
    yield element("p", "Checking as Context", class_="faint")
    yield element("h1", result.status, class_=tone)
    yield element("p", explained(result))
    if question.strip():
        yield section("Question", block(question, boxed=True))
    if result.chosen is not None:
        yield section("Chosen answer", block(result.answer, boxed=True))
    yield table(_facts(result))
    if result.rounds:
        yield _rounds(result)


def _facts(result: CacResult) -> list[tuple[str, str]]:
    """Return what there is to tell about the run as a whole, each with its name."""
    used = result.template
    facts = [
        ("Spent", spent(result.usage)),
        ("Strategy", result.strategy),
        ("Template", str(used) if used else ""),
        ("Template SHA-256", used.sha256 if used else ""),
        ("Error", result.error or ""),
    ]
    return [(name, value) for name, value in facts if value]


def _rounds(result: CacResult) -> Html:
    switch = element(
        "p",
        _SWITCH,
        element("label", " show what was taken out: ", element("del", "old words"), for_="removed"),
        " next to ",
        element("ins", "new words"),
        class_="faint",
    )
    cards = (
        _card(number, done, pieces, chosen=result.chosen == number - 1)
        for number, (done, pieces) in enumerate(_answers(result), 1)
    )
    return section("Rounds", *[switch] * (len(result.rounds) > 1), element("div", *cards, class_="rounds"))


def _card(number: int, done: Round, pieces: Iterable[Change], *, chosen: bool) -> Html:
    header = element(
        "header",
        element("h3", f"Answer {number}"),
        _badge(done.verdict),
        element("span", scored(done), class_="faint"),
        *([element("span", "★ chosen", class_="mark")] if chosen else []),
    )
    marked = [text if kind == "same" else element(kind, text) for kind, text in pieces if text]
    return element(
        "article",
        header,
        *([element("p", _UNCHANGED, class_="faint")] if done.changed is False else []),
        element("div", *marked or ["(empty)"], class_="text", dir="auto"),
        *(_judged(done.verdict) if done.verdict is not None else []),
        element("footer", spent(done.usage)),
        class_="chosen" if chosen else "",
    )


_UNCHANGED = "The same as the answer before, but for white space."


def _badge(verdict: Verdict | Vote | None) -> Html:
    word = verdict_word(verdict)
    return element("span", word, class_=f"word {word.replace(' ', '-')}")


def _judged(verdict: Verdict) -> Iterator[Html]:
    for name, text in _said(verdict):
        yield folded(name, block(text), unfolded=name != "Reasoning")
    if verdict.votes:
        yield folded("Votes", _votes(verdict.votes))


def _said(verdict: Verdict | Vote) -> list[tuple[str, str]]:
    """Return the texts of a verdict that are not empty, each with its name."""
    texts = [
        ("Critique", verdict.critique),
        ("Checker's error", verdict.error or ""),
        ("Checker's own answer", getattr(verdict, "corrected", None) or ""),
        ("Reasoning", getattr(verdict, "reasoning", "")),
    ]
    return [(name, text) for name, text in texts if text.strip()]


def _votes(votes: Iterable[Vote]) -> Html:
    return element("ul", *map(_vote, votes))


def _vote(vote: Vote) -> Html:
    score = [] if vote.score is None else [element("span", f" score {vote.score:g}", class_="faint")]
    return element(
        "li",
        element("strong", vote.name, dir="auto"),
        " ",
        _badge(vote),
        *score,
        *(block(text) for _, text in _said(vote)),
        *([_votes(vote.votes)] if vote.votes else []),
    )


# Markdown


def fenced(text: str, language: str = "") -> str:
    """Return a Markdown code block with the text, whatever is in it."""
    text = printable(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def code(text: str) -> str:
    """Return a short text as code within a line of Markdown, whatever is in it."""
    text = " ".join(printable(text).split())
    marks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{marks} {text} {marks}" if "`" in text else f"{marks}{text}{marks}"


def to_markdown(result: CacResult, question: str = "") -> str:
    """Return a run as Markdown.

    Args:
        result: The run.
        question: What was asked, to be shown on top.
    """
    facts = "\n".join(f"- {name}: {code(value)}" for name, value in _facts(result))
    parts = [f"# Checking as Context: {result.status}", explained(result), facts]
    if question.strip():
        parts += ["## Question", fenced(question)]
    if result.chosen is not None:
        parts += ["## Chosen answer", fenced(result.answer)]
    for number, (done, pieces) in enumerate(_answers(result), 1):
        mark = "chosen" if result.chosen == number - 1 else ""
        told = ", ".join(filter(None, [verdict_word(done.verdict), scored(done), mark]))
        parts += [f"## Answer {number}: {told}", fenced(done.answer), spent(done.usage)]
        if done.changed is False:
            parts.append(_UNCHANGED)
        elif any(kind != "same" for kind, _ in pieces):
            parts += ["**Changed from the answer before**", fenced(_listed(pieces), "diff")]
        if done.verdict is not None:
            parts += [part for name, text in _said(done.verdict) for part in (f"**{name}**", fenced(text))]
            parts += _told_votes(done.verdict.votes)
    return "\n\n".join(parts) + "\n"


def _told_votes(votes: Iterable[Vote], above: str = "") -> Iterator[str]:
    for number, vote in enumerate(votes, 1):
        place = f"{above}{number}"
        score = "" if vote.score is None else f", score {vote.score:g}"
        yield f"**Vote {place}** of {code(vote.name)}: {verdict_word(vote)}{score}"
        yield from (fenced(text) for _, text in _said(vote))
        yield from _told_votes(vote.votes, f"{place}.")


def _listed(pieces: Iterable[Change]) -> str:
    """List changes line by line, with a few words around them."""
    signs = {"same": "  ", "del": "- ", "ins": "+ "}
    return "\n".join(
        f"{signs[kind]}{line}".rstrip()
        for kind, text in pieces
        for line in (_shortened(text) if kind == "same" else text).strip("\n").split("\n")
    )


_AROUND = 6  # words


def _shortened(text: str) -> str:
    words = text.split()
    return " ".join([*words[:_AROUND], "…", *words[-_AROUND:]] if len(words) > 2 * _AROUND else words)
