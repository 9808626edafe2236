"""A run as a page and as Markdown: what is told, what changed, and that no text breaks out of its place."""

from __future__ import annotations

import random
import re
import time
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from correction_graphs.html_page import element, escaped, printable
from correction_graphs.results import CacResult, Round, TemplateInfo, Usage, Verdict, Vote, unicode_text
from correction_graphs.text_changes import changes
from correction_graphs.trace import code, fenced, spent

OLD = "The nurse was late.\n\nNobody else."
NEW = "It is open who was late.\n\nNobody else."
FIRST = Round(
    answer=OLD,
    verdict=Verdict(
        passed=False,
        critique="A gender is assumed.",
        score=0.25,
        reasoning="She may be anyone.",
        votes=(
            Vote(name="critic", passed=False, critique="No.", score=0.1),
            Vote(
                name="jury",
                passed=None,
                votes=(Vote(name="inner", passed=True), Vote(name="b", passed=None, error="E: x")),
            ),
        ),
    ),
    usage=Usage(model_calls=1, input_tokens=10, output_tokens=3, cached_tokens=4, seconds=1.25),
)
SECOND = Round(answer=NEW, verdict=Verdict(passed=True, score=0.75), changed=True, score_change=0.5)
RESULT = CacResult(
    status="passed",
    rounds=(FIRST, SECOND),
    chosen=1,
    usage=Usage(model_calls=4, input_tokens=50, output_tokens=9, cached_tokens=20, seconds=3.5),
    strategy="self_instruct",
    template=TemplateInfo(name="bias", version="3", language="en", sha256="51aa"),
    error="Oops: it broke",
)
texts = st.text(st.characters()) | st.text("<>&\"'`/!-ab \n\r\t\x00", max_size=40)
phrases = st.lists(st.sampled_from(["a", "b", "the", "医", "生", "。", " ", "  ", "\n", "\n\n", "\u3000"])).map("".join)


class Page(HTMLParser):
    """Reads a page: its tags in order, and the text within elements, by their class or tag."""

    VOID = ("meta", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.open: list[tuple[str, list[str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.declared: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, attrs))
        if tag not in self.VOID:
            self.open.append((f"{tag}.{dict(attrs).get('class') or ''}", []))

    def handle_endtag(self, tag) -> None:
        name, parts = self.open.pop()
        assert name.split(".")[0] == tag
        self.texts.append((name, "".join(parts)))

    def handle_data(self, data) -> None:
        for _, parts in self.open:
            parts.append(data)

    def handle_comment(self, data) -> None:
        raise AssertionError(data)

    def handle_pi(self, data) -> None:
        raise AssertionError(data)

    def handle_decl(self, decl) -> None:
        self.declared.append(decl)

    def of(self, name: str) -> list[str]:
        return [text for found, text in self.texts if found == name]


def named(text: str) -> CacResult:
    """A result with the text wherever a text can be."""
    vote = Vote(name=text, passed=False, critique=text, error=text)
    verdict = Verdict(passed=False, critique=text, reasoning=text, error=text, corrected=text, votes=(vote,))
    return CacResult(
        status="failed",
        rounds=(Round(answer=text, verdict=verdict), Round(answer=f"{text} x", verdict=verdict), Round(answer=text)),
        chosen=0,
        strategy=text,
        template=TemplateInfo(name=text, version=text, language=text, sha256=text),
        error=text,
    )


# What changed


def sides(old: str, new: str) -> tuple[str, str]:
    pieces = changes(old, new)
    assert all(text for _, text in pieces)
    assert all(one.kind != other.kind for one, other in pairwise(pieces))
    return tuple("".join(text for kind, text in pieces if kind != left_out) for left_out in ("ins", "del"))


@given(phrases | texts, phrases | texts)
def test_without_one_kind_of_change_either_text_is_left(old: str, new: str) -> None:
    assert sides(old, new) == (old, new)


@given(phrases | texts)
def test_nothing_changes_between_a_text_and_itself(text: str) -> None:
    assert changes(text, text) == ([("same", text)] if text else [])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", []),
        ("", "new", [("ins", "new")]),
        ("old", "", [("del", "old")]),
        ("one two three", "one 2 three", [("same", "one "), ("del", "two "), ("ins", "2 "), ("same", "three")]),
        ("a b c d", "x y c d", [("del", "a b "), ("ins", "x y "), ("same", "c d")]),
        ("a b", "a b c", [("same", "a b"), ("ins", " c")]),
        ("a  b", "a b", [("same", "a"), ("del", "  "), ("ins", " "), ("same", "b")]),
        ("这是护士。", "这是医生。", [("same", "这是"), ("del", "护士"), ("ins", "医生"), ("same", "。")]),
    ],
)
def test_changes_are_told_word_by_word(old: str, new: str, expected: list[tuple[str, str]]) -> None:
    assert changes(old, new) == expected


WORDS = [str(number) for number in range(50_000)]
MIXED = random.Random(0).sample([*WORDS, *["the"] * 50_000], 100_000)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (" ".join(["a"] * 100_000), " ".join(["a"] * 99_000 + ["b"])),
        (" x ".join(WORDS[:25_000]), " x ".join(WORDS[25_000:])),
        (" ".join(MIXED), " ".join(MIXED[::-1])),
        ("\n".join(MIXED), "\n".join(MIXED[::-1])),
        ("ab" * 500_000, "ba" * 500_000),
        (" \n" * 300_000, "\t" * 300_000),
        ("医" * 100_000, "生医" * 50_000),
    ],
    ids=["one word", "few in common", "half in common", "lines", "no spaces", "only spaces", "chinese"],
)
def test_very_long_answers_take_no_long_time(old: str, new: str) -> None:
    began = time.monotonic()

    assert sides(old, new) == (old, new)

    assert time.monotonic() - began < 30


def test_long_texts_with_too_many_words_in_common_are_compared_by_lines() -> None:
    lines = [" ".join(f"the {word}" for word in WORDS[start : start + 20]) for start in range(0, 2000, 20)]
    new = ["Begins differently.", *lines[1:-1], "Ends differently."]

    pieces = changes("\n".join(lines), "\n".join(new))

    assert [kind for kind, _ in pieces] == ["del", "ins", "same", "del", "ins"]


# The page


def test_the_page_tells_everything() -> None:
    page = Page(RESULT.to_html("Who was late?"))
    (body,) = page.of("body.")

    told = [
        "The checker accepted the answer. Chosen: answer 2 of 2.",
        "Who was late?",
        "4 model calls, 50 tokens in (20 cached), 9 out, 3.5 s",
        "self_instruct",
        "bias, version 3, language en",
        "51aa",
        "Oops: it broke",
        "A gender is assumed.",
        "She may be anyone.",
        "1 model call, 10 tokens in (4 cached), 3 out, 1.2 s",
        "score 0.75 (+0.5)",
        "inner",
        "E: x",
    ]
    assert [text for text in told if text not in body] == []
    assert page.of("h1.passed") == ["passed"]
    assert page.of("div.text boxed") == ["Who was late?", NEW]
    assert page.of("summary.") == ["Critique", "Reasoning", "Votes"]
    assert page.declared == ["doctype html"]


def test_the_page_marks_the_chosen_answer_and_each_verdict() -> None:
    rounds = (FIRST, Round(answer="a", verdict=Verdict(passed=None)), Round(answer="b"), SECOND)
    page = Page(RESULT.model_copy(update={"rounds": rounds, "chosen": 3}).to_html())
    cards = [text for name, text in page.texts if name.startswith("article.")]

    assert [re.match(r"Answer \d(failed|unclear|not checked|passed)", card)[1] for card in cards] == [
        "failed",
        "unclear",
        "not checked",
        "passed",
    ]
    assert [card for card in cards if "★ chosen" in card] == page.of("article.chosen") == [cards[3]]


def test_the_page_shows_what_changed() -> None:
    page = Page(CacResult(status="exhausted", rounds=(FIRST, SECOND)).to_html())

    assert page.of("ins.")[1:] == ["It is open who "]  # after the legend
    assert page.of("del.")[1:] == ["The nurse "]


@pytest.mark.parametrize("status", ["passed", "exhausted", "plateau", "oscillation", "budget", "unverified", "failed"])
@pytest.mark.parametrize("rounds", [(), (FIRST,), (FIRST, SECOND)])
@pytest.mark.parametrize("chosen", [False, True])
def test_each_status_is_explained_however_many_rounds(status, rounds: tuple[Round, ...], *, chosen: bool) -> None:
    result = CacResult(status=status, rounds=rounds, chosen=0 if chosen and rounds else None)
    page = Page(result.to_html())
    explained = page.of("p.")[0]

    assert re.fullmatch(r"[A-Z][^.]*\.( [A-Z][^.]*\.)+", explained)
    assert explained in result.to_markdown()
    assert len([name for name, _ in page.texts if name.startswith("article.")]) == len(rounds)
    assert bool(page.of("ins.")) == (len(rounds) > 1)


def test_the_page_loads_and_runs_nothing() -> None:
    page = RESULT.to_html()
    tags = {tag for tag, _ in Page(page).tags}

    assert not tags & {"script", "link", "img", "iframe", "a", "form", "base", "object", "svg"}
    assert "http:" not in page
    assert "https:" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


@given(texts)
def test_no_text_breaks_out_of_the_page(text: str) -> None:
    asked, shown = printable(text), printable(unicode_text(text))
    page = Page(named(text).to_html(text))
    harmless = "a" if text.strip() else " " * bool(text)  # blank texts are left out here and there
    plain = Page(named(harmless).to_html(harmless))

    def outline(of: Page) -> list:
        return [(tag, attrs) for tag, attrs in of.tags if tag not in ("ins", "del")]

    assert outline(page) == outline(plain)
    assert all(attrs == [] for tag, attrs in page.tags if tag in ("ins", "del"))
    answers = page.of("div.text")
    assert answers[0] == (shown or "(empty)")
    assert page.of("div.text boxed") == [*[asked] * bool(text.strip()), shown or "(empty)"]


@given(texts)
def test_the_page_and_the_markdown_can_be_written(text: str) -> None:
    for written in (named(text).to_html(text), named(text).to_markdown(text)):
        written.encode()
        assert not set(written) & {"\x00", "\x1b", "\r", "\x07", "\x9b", "\x0c"}


@given(texts)
def test_elements_escape_what_is_inside_and_their_attributes(text: str) -> None:
    page = Page(element("p", text, element("b", text), title=text, id=""))

    assert page.of("p.") == [printable(text) * 2]
    assert page.tags[0] == ("p", [("title", printable(text))] if text else [])
    assert escaped(escaped(text)) == escaped(text)


# Markdown


def test_the_markdown_tells_everything() -> None:
    assert (
        CacResult(
            status="passed",
            rounds=(FIRST, SECOND),
            chosen=1,
            usage=RESULT.usage,
            template=RESULT.template,
            error="a `b`\nc",
        ).to_markdown("Who?")
        == """\
# Checking as Context: passed

The checker accepted the answer. Chosen: answer 2 of 2.

- Spent: `4 model calls, 50 tokens in (20 cached), 9 out, 3.5 s`
- Strategy: `self`
- Template: `bias, version 3, language en`
- Template SHA-256: `51aa`
- Error: `` a `b` c ``

## Question

```
Who?
```

## Chosen answer

```
It is open who was late.

Nobody else.
```

## Answer 1: failed, score 0.25

```
The nurse was late.

Nobody else.
```

1 model call, 10 tokens in (4 cached), 3 out, 1.2 s

**Critique**

```
A gender is assumed.
```

**Reasoning**

```
She may be anyone.
```

**Vote 1** of `critic`: failed, score 0.1

```
No.
```

**Vote 2** of `jury`: unclear

**Vote 2.1** of `inner`: passed

**Vote 2.2** of `b`: unclear

```
E: x
```

## Answer 2: passed, score 0.75 (+0.5), chosen

```
It is open who was late.

Nobody else.
```

0 model calls, 0 tokens in, 0 out, 0.0 s

**Changed from the answer before**

```diff
- The nurse
+ It is open who
  was late. Nobody else.
```
"""
    )


def test_an_answer_that_stayed_the_same_is_said_to() -> None:
    again = Round(answer=f"{OLD}\n", changed=False)
    result = CacResult(status="plateau", rounds=(FIRST, again), chosen=0)

    assert "The same as the answer before, but for white space." in result.to_markdown()
    assert "The same as the answer before, but for white space." in result.to_html()


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        (Usage(), "0 model calls, 0 tokens in, 0 out, 0.0 s"),
        (Usage(model_calls=1, cached_tokens=2), "1 model call, 0 tokens in (2 cached), 0 out, 0.0 s"),
        (
            Usage(model_calls=3, unreported_calls=1, cost=0.25),
            "3 model calls, 0 tokens in, 0 out, 0.0 s, 1 model call without a count of tokens, cost 0.25",
        ),
    ],
)
def test_what_was_spent_is_told_in_a_line(usage: Usage, told: str) -> None:
    assert spent(usage) == told
    assert spent(usage, calls=False) == told.partition(", ")[2]


def outside_fences(markdown: str) -> list[str]:
    """The lines of a Markdown text that are not in a code block."""
    lines, fence = [], ""
    for line in markdown.split("\n"):
        opening = re.match("`{3,}", line)
        if fence:
            fence = "" if re.fullmatch(f"{fence}`*[ \t]*", line.strip(" ")) else fence
        elif opening:
            fence = opening[0]
        else:
            lines.append(line)
    assert fence == ""
    return lines


@given(st.text("`~a\n \t#<>", max_size=40) | texts)
def test_no_text_breaks_out_of_the_markdown(text: str) -> None:
    lines = outside_fences(named(text).to_markdown(text))

    known = r"|# Checking as Context: failed|## (Question|Chosen answer|Answer \d: [a-z ,]+)|\*\*[A-Za-z' ]+\*\*"
    facts = r"- [A-Za-z0-9- ]+: `.*`|\*\*Vote 1\*\* of `.*`: failed|\d+ model calls, .* s"
    sentence = r"Something went wrong .*|The same as .*"
    assert [line for line in lines if not re.fullmatch(f"{known}|{facts}|{sentence}", line)] == []


@given(st.text("`ab \n", max_size=30))
def test_code_and_fences_are_longer_than_what_they_hold(text: str) -> None:
    longest = max(map(len, re.findall("`+", text)), default=0)

    assert len(re.match("`+", fenced(text))[0]) > max(longest, 2)
    assert len(re.match("`*", code(text))[0]) > longest
    assert "\n" not in code(text)
