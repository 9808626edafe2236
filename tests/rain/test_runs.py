"""One search as its users see it: what it tells of itself at any time, how it goes on elsewhere, and what it holds."""

from __future__ import annotations

from typing import Any

import pytest
from talkers import choosing, liking, open_branches, small, variety

from correction_graphs.errors import SearchError, SettingsError
from correction_graphs.rain.runs import Run, Searcher, template_of
from correction_graphs.rain.similarity import as_similarity
from correction_graphs.rain.values import as_value_function
from correction_graphs.results import RainResult
from correction_graphs.testing import ToyBackend

ASK = [{"role": "user", "content": "hi"}]
TEXT = "It is good. So good. Yes."


def searcher(backend: Any = None, judge: Any = None, similarity: Any = None, **settings: Any) -> Searcher:
    return Searcher(
        backend or choosing("It is bad.", TEXT),
        small(**settings),
        as_value_function(judge or liking("good")),
        as_similarity(similarity),
    )


def finish(run: Run) -> RainResult:
    while run.advance() is not None:
        pass
    return run.result()


def test_it_tells_what_there_is_at_any_time() -> None:
    run = searcher().start(ASK)
    assert (run.result().text, run.result().commits, run.ended) == ("", (), False)
    assert run.result().value is None

    commit = run.advance()

    assert commit.text == run.result().text == "It is good."
    assert (commit.reason, commit.value) == ("accepted", 1.0)
    assert run.result("length").stop_reason == "length"
    assert run.result().output_tokens == len("It is good.")
    result = finish(run)
    assert run.ended
    assert (result.text, result.stop_reason) == (TEXT, "stop")
    assert result.seconds > 0
    assert run.advance() is None
    run.close()
    run.close()
    assert run.result().text == TEXT, "what was written is known after it was closed"


def test_a_failure_without_a_text_is_named_by_its_kind_alone() -> None:
    failed = searcher().start(ASK).failed(TimeoutError())

    assert str(failed).startswith("the search failed after 0 token sets: TimeoutError. ")
    assert failed.result.error == "TimeoutError"


def test_events_tell_of_each_text_that_was_judged() -> None:
    events: list[Any] = []
    finish(searcher().start(ASK, on_event=events.append))

    judged = [event for event in events if type(event).__name__ == "Judged"]
    assert "It is bad." in [event.text for event in judged]
    assert any(event.rewound for event in judged)
    assert [event.text for event in events if type(event).__name__ == "Commit" and event.text] == [
        "It is good.",
        " So good.",
        " Yes.",
    ]


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("stop", [(), ("good. Y",)])
def test_it_goes_on_elsewhere_without_losing_or_repeating_a_word(after: int, stop: tuple[str, ...]) -> None:
    """Also where text was held back that might have begun a stop text."""
    first = searcher(stop=stop).start(ASK)
    whole = finish(searcher(stop=stop).start(ASK))
    for _ in range(after):
        first.advance()
    told = RainResult.model_validate_json(first.result().model_dump_json())

    backend = choosing("It is bad.", TEXT)
    second = searcher(backend, stop=stop).start(ASK).resume(told)
    result = finish(second)

    assert result.text == whole.text == (TEXT if not stop else "It is good. So ")
    assert result.stop_reason == "stop"
    assert "".join(commit.text for commit in result.commits) == result.text
    assert result.commits[: len(told.commits)] == told.commits
    assert result.seconds >= told.seconds
    second.close()
    assert open_branches(backend) == 0


def test_a_reply_that_is_too_long_for_the_settings_is_not_gone_on_with() -> None:
    told = finish(searcher().start(ASK))
    backend = choosing(TEXT)
    with pytest.raises(SettingsError, match="room"):
        searcher(backend, max_new_tokens=4).start(ASK).resume(told)
    assert open_branches(backend) == 0


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_failure_carries_the_text_and_what_went_wrong(mode: str) -> None:
    def judge(text: str) -> float:
        if "So" in text:
            raise ValueError("no idea")
        return liking("good")(text)

    backend = choosing("It is bad.", TEXT)
    run = searcher(backend, judge).start(ASK)
    run.advance()
    with pytest.raises(SearchError, match="after 1 token sets") as caught:
        run.advance() if mode == "sync" else await run.aadvance()
    assert caught.value.result.text == "It is good."
    assert caught.value.result.stop_reason == "failed"
    assert caught.value.result.error.startswith("JudgeError")
    assert caught.value.result.to_html()
    run.close()
    assert open_branches(backend) == 0


def test_the_judges_template_is_named() -> None:
    assert template_of(as_value_function("harmless")).name == "harmless"
    assert template_of(as_value_function(variety)) is None
    backend = choosing(TEXT, n_ctx=8192, n_cells=32768)
    run = searcher(backend, "harmless").start(ASK)
    assert run.result().template.name == "harmless"
    run.close()


def test_each_similarity_brings_its_own_threshold() -> None:
    backend = ToyBackend(n_cells=8192, n_sequences=64)
    settings = {"max_new_tokens": 12, "lengths": (4,), "candidates": 3, "max_children": 6, "max_iterations": 8}
    similarity = as_similarity("trigrams")
    run = Searcher(backend, small(similarity=0.123, **settings), as_value_function(variety), similarity).start(ASK)
    assert run._search.settings.similarity == similarity.threshold != 0.123
    assert finish(run).output_tokens == 12
    run.close()


def test_sharing_that_is_off_stays_off_beside_an_encoder_for_addition() -> None:
    off = small(similarity=None, add_variance=0.03, lengths=(4,))
    run = Searcher(ToyBackend(), off, as_value_function(variety), as_similarity("trigrams")).start(ASK)
    assert run._search.settings.similarity is None
    run.close()


def test_a_context_that_is_too_small_leaves_nothing_open() -> None:
    backend = choosing(TEXT, n_ctx=40)
    with pytest.raises(ValueError, match="n_ctx"):
        searcher(backend).start([{"role": "user", "content": "x" * 30}])
    assert open_branches(backend) == 0
