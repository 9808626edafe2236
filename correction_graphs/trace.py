"""A finished run as a page or a text that a person can read: each answer, what was said of it, and what then changed.

`CacResult.to_html` and `CacResult.to_markdown` call this. Answers come from models and may hold anything, so no text
gets into a page but through `html_page`, and none into Markdown but through `fenced` or `code`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Literal, NamedTuple

from correction_graphs.html_page import Html, block, element, folded, page, printable, section, table

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


def spent(usage: Usage) -> str:
    """Tell in a line what was spent."""
    calls = f"{usage.model_calls} model call{'' if usage.model_calls == 1 else 's'}"
    return (
        f"{calls}, {usage.input_tokens} tokens in ({usage.cached_tokens} cached), {usage.output_tokens} out, "
        f"{usage.seconds:.1f} s{_extras(usage)}"
    )


def _extras(usage: Usage) -> str:
    """Tell what most runs have nothing to say of."""
    silent = f", {usage.unreported_calls} of them without a count of tokens" if usage.unreported_calls else ""
    return silent + (f", cost {usage.cost:.6g}" if usage.cost is not None else "")


# What changed from one answer to the next


class Change(NamedTuple):
    """A piece of text that two answers share, or that only the older ("del") or the newer one ("ins") has."""

    kind: Literal["same", "del", "ins"]
    text: str


# Chinese and Japanese put no spaces between words; there each character counts as one. Whitespace goes with what
# precedes it, and is not looked at when words are matched.
_ALONE = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
_WORD = re.compile(rf"([{_ALONE}]|[^\s{_ALONE}]*)(\s*)")
_LINE = re.compile(r"([^\n]*)(\n*)")
_MOST_COMPARISONS = 50_000_000  # in the worst case, which takes a second; 1800 words of prose, all of them new


def changes(old: str, new: str) -> list[Change]:
    """Compare two texts word by word, or line by line where they are too long for that.

    Without the "ins" pieces the result is exactly `old`, without the "del" pieces exactly `new`. For very long texts
    the time grows with their length only: where even their lines are too many to compare, all of the text is new.
    """
    for unit in (_WORD, _LINE):
        before, after = _units(unit, old), _units(unit, new)
        pairs = _matched([word for word, _ in before], [word for word, _ in after])
        if pairs is not None:
            return _joined(_pieces(before, after, pairs))
    return _joined([Change("del", old), Change("ins", new)])


def _units(unit: re.Pattern[str], text: str) -> list[tuple[str, str]]:
    """Cut a text into words, or lines, each with the whitespace after it."""
    return [(found[1], found[2]) for found in unit.finditer(text) if found[0]]


def _matched(before: Sequence[str], after: Sequence[str]) -> list[tuple[int, int]] | None:
    """Return which words of two texts are the same ones, by their places; None if it would take too long to tell."""
    start = _shared(before, after)
    end = _shared(before[start:][::-1], after[start:][::-1])
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    counts = Counter(new)
    if sum(counts[word] for word in old) * min(len(old), len(new)) > _MOST_COMPARISONS:
        return None
    found = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    return [
        *((place, place) for place in range(start)),
        *((start + i + n, start + j + n) for i, j, size in found for n in range(size)),
        *((len(before) - n, len(after) - n) for n in range(end, 0, -1)),
    ]


def _shared(before: Sequence[str], after: Sequence[str]) -> int:
    """Count the words that two texts begin with in common."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((place for place, (old, new) in pairs if old != new), min(len(before), len(after)))


def _pieces(
    before: Sequence[tuple[str, str]], after: Sequence[tuple[str, str]], pairs: Iterable[tuple[int, int]]
) -> Iterator[Change]:
    i = j = 0
    for old, new in [*pairs, (len(before), len(after))]:
        yield from (Change("del", word + space) for word, space in before[i:old])
        yield from (Change("ins", word + space) for word, space in after[j:new])
        if old < len(before):
            (word, space), (_, now) = before[old], after[new]
            yield Change("same", word)
            yield from [Change("same", space)] if space == now else [Change("del", space), Change("ins", now)]
        i, j = old + 1, new + 1


def _joined(pieces: Iterable[Change]) -> list[Change]:
    """Join neighbours of one kind, what was taken out before what was put in."""
    joined: list[Change] = []
    gone = come = ""
    for kind, text in [*pieces, Change("same", "")]:
        gone, come = gone + text * (kind == "del"), come + text * (kind == "ins")
        if kind == "same" and text and not (gone or come) and joined:
            joined[-1] = Change("same", joined[-1].text + text)
        elif kind == "same" and (text or gone or come):
            joined += [piece for piece in (Change("del", gone), Change("ins", come)) if piece.text]
            joined.append(Change("same", text))
            gone = come = ""
    return [piece for piece in joined if piece.text]


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
        ("Template", f"{used.name}, version {used.version}, language {used.language}" if used else ""),
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
