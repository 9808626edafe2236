"""The page of a search: what stands on it, and in which order. What it looks like is in test_picture_browser.py."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from correction_graphs.results import RainCommit, RainNode, RainResult, TemplateInfo


def node(text: str, value: float = 0.0, visits: int = 1, **more: Any) -> RainNode:
    return RainNode(tokens=(1,), text=text, prior=0.5, **{"visits": visits, "n": visits, "value": value, **more})


def commit(text: str, value: float = 0.5, visits: int = 1, *rewound: RainNode, **more: Any) -> RainCommit:
    chosen = node(text, value, visits, committed=True, judged=value)
    return RainCommit(
        **{
            "tokens": (1,),
            "text": text,
            "value": value,
            "visits": visits,
            "reason": "accepted",
            "iterations": 3,
            "evaluations": 2,
            "rewinds": 1,
            "forwarded_tokens": 1000,
            "judge_tokens": 700,
            "searched": (*rewound, chosen),
            **more,
        }
    )


RESULT = RainResult(
    text="Be kind. Talk.",
    stop_reason="stop",
    commits=(
        commit("Be kind.", 0.25, 4, node("Shout.", -0.75, 2, judged=-0.5, children=(node(" Louder.", -1.0),))),
        commit(" Talk.", 0.875),
    ),
    prompt_tokens=12,
    seconds=4.0,
    template=TemplateInfo(name="harmless", version="1", language="en", sha256="abc"),
)


class Page(HTMLParser):
    """What a page says: texts outside of its style, hints, and the elements with their classes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.hints: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.hints += [value or "" for name, value in attrs if name == "title"]

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(f"{text} " for text in self.texts).split())


def test_the_page_tells_question_reply_and_sums() -> None:
    text = Page(RESULT.to_html("How do I sleep?")).text

    assert "stop The model ended the reply, or a stop text did. Question How do I sleep? Reply Be kind. Talk." in text
    for fact in (
        "Value +0.88",
        "Reply 2 tokens in 2 token sets",
        "Search 6 iterations, 4 texts judged, 2 rewinds",
        "Computed 2,000 tokens, 1,400 of them by the judge; prompt: 12",
        "Time 4.0 s, 0.5 tokens of the reply a second",
        "Template harmless, version 1, language en",
        "Template SHA-256 abc",
    ):
        assert fact in text


def test_the_tree_goes_from_the_prompt_down_the_reply_with_branches_where_they_were_left() -> None:
    text = Page(RESULT.to_html()).text
    tree = text[text.index("the prompt") :]

    said = re.findall(r"Be kind\.|Shout\.|Louder\.|Talk\.|nothing rewound|2 branches left", tree)
    assert said == ["2 branches left", "Shout.", "Louder.", "Be kind.", "nothing rewound", "Talk."]


def test_hints_have_the_whole_text_and_its_figures() -> None:
    hints = Page(RESULT.to_html()).hints

    assert "Shout.\nvalue \u22120.75, judged \u22120.50, 2 visits, prior 0.50" in hints
    assert "Be kind.\nvalue +0.25, judged +0.25, 4 visits, prior 0.50" in hints


def test_shared_visits_are_told_where_there_are_any() -> None:
    shared = RESULT.model_copy(update={"commits": (commit("A.", 0.5, 1, node("B.", 0.1, 2, n=2.3)),)})

    assert any(hint.endswith("prior 0.50, 2.3 with those of similar ones") for hint in Page(shared.to_html()).hints)
    assert "similar" not in RESULT.to_html()


@pytest.mark.parametrize(
    ("value", "shade"), [(-1.0, "v0"), (-0.5, "v2"), (0.0, "v4"), (0.26, "v5"), (0.5, "v6"), (1.0, "v8")]
)
def test_values_are_colours(value: float, shade: str) -> None:
    page = RainResult(text="A.", stop_reason="stop", commits=(commit("A.", value),)).to_html()

    marks = [given["class"] for tag, given in Page(page).elements if tag == "mark"]
    assert marks == [shade]
    assert f"--{shade}: #" in page


def test_visits_are_widths() -> None:
    result = RainResult(
        text="A.", stop_reason="stop", commits=(commit("A.", 0.5, 16, node("B.", 0.0, 4), node("C.", 0.0, 1)),)
    )

    styles = [given.get("style", "") for tag, given in Page(result.to_html()).elements if tag == "li"]
    assert styles == ["--w:7.0px", "--w:3.5px", "--w:1.8px", ""]


def test_a_long_search_is_folded_and_a_short_one_is_not() -> None:
    many = tuple(node(f"No {number}.") for number in range(49))
    long = RainResult(text="A" * 60, stop_reason="length", commits=(commit("A", 0.5, 1, *many),) * 60)

    opened = [given for tag, given in Page(long.to_html()).elements if tag == "details" and "open" in given]
    page = Page(long.to_html())
    assert opened == []
    assert sum(tag == "details" for tag, _ in page.elements) == 60
    assert sum(given.get("class") == "said" for _, given in page.elements) == 60 * 50
    assert len(long.to_html()) < 2_000_000
    assert "<details open" in RESULT.to_html()


def test_a_search_that_stopped_at_once_has_a_page() -> None:
    page = Page(RainResult(text="", stop_reason="failed", error="JudgeError: no value").to_html("Why?"))

    assert "Question Why? Reply (empty)" in page.text
    assert "Error JudgeError: no value" in page.text
    assert "the prompt" not in page.text


def test_text_that_no_commit_brought_is_shown_unmarked() -> None:
    result = RainResult(text="Be kind. ST", stop_reason="failed", commits=(commit("Be kind."),))

    page = result.to_html()
    assert re.search(r"<mark [^>]*>Be kind\.</mark> ST</div>", page)


def test_a_set_without_text_says_so() -> None:
    held = commit("", searched=(node("ST", committed=True),))
    last = commit("ST", tokens=(), searched=(), reason="deadline")
    text = Page(RainResult(text="ST", stop_reason="deadline", commits=(held, last)).to_html()).text

    assert "(held back until the next)" in text
    assert "ended by the deadline" in text


def test_a_line_break_and_a_blank_are_shown_as_such() -> None:
    text = Page(RainResult(text="\n\n ", stop_reason="stop", commits=(commit("\n\n"), commit(" "))).to_html()).text

    assert "⏎⏎" in text
    assert "(blank)" in text


def test_a_very_deep_branch_is_drawn() -> None:
    deep = node("end.")
    for number in range(60):
        deep = node(f"{number}.", children=(deep,))
    text = Page(RainResult(text="A.", stop_reason="stop", commits=(commit("A.", 0.5, 1, deep),)).to_html()).text

    assert "61 branches left" in text
    assert "end." in text
