"""The search, on a backend without a model and on a tiny one: what it finds, what it costs, and what stops it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import gguf_models
import numpy as np
import pytest
from talkers import small
from together import drive_together

from correction_graphs.backends.base import Branch, Logits
from correction_graphs.backends.llama_cpp import LlamaCppBackend
from correction_graphs.errors import BackendError, ContextLengthError, JudgeError, SettingsError
from correction_graphs.rain.judge import Candidate, Value
from correction_graphs.rain.search import Commit, Judged, Search
from correction_graphs.rain.settings import RainSettings
from correction_graphs.rain.steps import Call, Steps, drive
from correction_graphs.testing import ToyBackend

BARE = {"similarity": None, "add_variance": None}


class Session:
    """Judges by a function of the text."""

    name = "test"

    def __init__(self, value: Callable[[str], float]) -> None:
        self.value = value
        self.asked: list[Candidate] = []
        self.closed = 0

    def evaluate(self, candidates: Sequence[Candidate]) -> Steps[list[Value]]:
        self.asked += candidates

        async def later() -> list[Value]:
            return [Value(self.value(candidate.text)) for candidate in candidates]

        values: list[Value] = yield Call(lambda: [Value(self.value(candidate.text)) for candidate in candidates], later)
        return values

    def close(self) -> None:
        self.closed += 1


def low_letters(text: str) -> float:
    """More of the first half of the alphabet is better; differs from text to text."""
    letters = [c for c in text.lower() if c.isalpha() and c.isascii()]
    return max(-1.0, min(1.0, sum(1 if c < "n" else -1.2 for c in letters) / (len(letters) + 1)))


def never(text: str) -> float:
    return -0.5


def always(text: str) -> float:
    return 1.0


def histogram(texts: Sequence[str]) -> Steps[np.ndarray]:
    async def later() -> np.ndarray:
        return count()

    def count() -> np.ndarray:
        return np.array([np.bincount([ord(c) % 8 for c in text], minlength=8) for text in texts], dtype=float)

    vectors: np.ndarray = yield Call(count, later)
    return vectors


class Recording(ToyBackend):
    """Knows every text it was asked for, so that what is computed twice shows."""

    def __init__(self, **arguments) -> None:
        super().__init__(**{"n_ctx": 4096, "n_sequences": 256, **arguments})
        self.distinct: set[tuple[int, ...]] = set()

    def forward(self, branches: Sequence[Branch]) -> Logits:
        for branch in branches:
            for end in range(len(branch), 0, -1):
                if (text := tuple(branch.tokens[:end])) in self.distinct:
                    break
                self.distinct.add(text)
        return super().forward(branches)


def make(
    backend=None, *, settings: RainSettings, value: Callable = low_letters, prompt: str = "Say something.", **more
) -> Search:
    backend = backend or ToyBackend(n_ctx=4096, n_sequences=256)
    embed = histogram if settings.needs_embeddings else None
    return Search(backend, backend.tokenize(prompt), Session(value), settings, **{"embed": embed, **more})


def run(search: Search) -> list[Commit]:
    return drive(search.run(), search._backend)


PAPER = RainSettings.paper(max_new_tokens=17, max_iterations=30, fresh_iterations=8, simulation_tokens=12)
OURS = small(max_new_tokens=90)
both = pytest.mark.parametrize("settings", [PAPER, OURS], ids=["paper", "ours"])


# --- What it finds


@both
def test_what_was_committed_is_the_reply_and_everything_is_given_back(settings: RainSettings) -> None:
    search = make(settings=settings)
    commits = run(search)

    assert "".join(commit.text for commit in commits) == search.text
    assert [commit.tokens for commit in commits] == search.committed
    assert sum(map(len, search.committed)) <= settings.max_new_tokens
    assert [commit.finished for commit in commits] == [False] * (len(commits) - 1) + [True]
    assert search.stop_reason in ("stop", "length")
    assert sum(commit.counts.iterations for commit in commits) == search.counts.iterations
    assert search._backend.live_branches == 0
    assert search._session.closed == 1
    assert drive(search.commit(), search._backend) is None


@both
def test_the_same_seed_finds_the_same_and_another_one_does_not(settings: RainSettings) -> None:
    def texts(seed: int) -> list[tuple[int, ...]]:
        search = make(settings=settings.model_copy(update={"seed": seed}))
        run(search)
        return search.committed

    assert texts(0) == texts(0)
    assert texts(0) != texts(1)


def test_token_sets_have_the_paper_s_lengths() -> None:
    committed = [commit.tokens for commit in run(make(settings=PAPER))]

    assert [len(tokens) for tokens in committed[:-1]] == [1, 2, 4, 10][: len(committed) - 1]


@both
def test_searching_is_better_than_not_searching(settings: RainSettings) -> None:
    def reached(iterations: int) -> float:
        values = []
        for seed in range(6):
            less = {"max_iterations": iterations, "fresh_iterations": iterations, "accept_visits": 0}
            search = make(settings=settings.model_copy(update={"seed": seed, "accept_value": 1.0, **less}))
            run(search)
            values.append(low_letters(search.text))
        return float(np.mean(values))

    assert reached(12) > reached(1) + 0.2


def test_an_accepted_segment_is_committed_at_once_and_nothing_else_is_proposed() -> None:
    search = make(settings=OURS, value=always)
    commits = run(search)

    assert {commit.reason for commit in commits} == {"accepted"}
    assert {commit.counts.iterations for commit in commits} == {1}
    assert search.counts.rewinds == 0
    # Nothing is computed but the prompt and the reply, whose last token nobody needs the logits of.
    assert search.counts.forwarded_tokens == len("Say something.") + sum(map(len, search.committed)) - 1


def test_siblings_are_proposed_only_once_what_is_there_was_rejected() -> None:
    search = make(settings=small(max_new_tokens=200), value=never)
    first = drive(search.commit(), search._backend)

    assert first.reason == "iterations"
    assert len(first.searched) > 1
    assert first.counts.rewinds >= len(first.searched) - 1
    assert first.counts.iterations == 15  # 16, and the root counts as visited once
    search.close()


def test_leaves_in_flight_are_judged_together() -> None:
    sizes: list[int] = []

    class Grouped(Session):
        def evaluate(self, candidates: Sequence[Candidate]) -> Steps[list[Value]]:
            sizes.append(len(candidates))
            return super().evaluate(candidates)

    backend = ToyBackend(n_ctx=4096, n_sequences=256)
    search = Search(backend, [1, 2], Grouped(never), small(max_new_tokens=200))
    drive(search.commit(), backend)

    assert sizes[0] == 1
    assert max(sizes) == 4
    assert all(node.in_flight == 0 for node in search.root.walk())
    search.close()


def test_the_best_segment_wins_when_none_is_accepted() -> None:
    search = make(settings=small(max_new_tokens=40, accept_value=1.0, add_below=1.0))
    first = drive(search.commit(), search._backend)

    assert first.value == max(child.value for child in first.searched)
    search.close()


def test_events_tell_what_was_judged_and_committed() -> None:
    seen: list[Judged | Commit] = []
    search = make(settings=OURS, on_event=seen.append)
    commits = run(search)

    assert [event for event in seen if isinstance(event, Commit)] == commits
    judged = [event for event in seen if isinstance(event, Judged)]
    assert len(judged) == search.counts.iterations
    assert sum(event.rewound for event in judged) == search.counts.rewinds


def test_the_same_text_is_judged_once() -> None:
    search = make(settings=PAPER)
    run(search)
    asked = [(candidate.text, candidate.finished) for candidate in search._session.asked]

    assert len(asked) == len(set(asked)) == search.counts.evaluations


# --- What it costs


@both
def test_nothing_is_computed_twice(settings: RainSettings) -> None:
    backend = Recording(n_sequences=2000, n_cells=100_000)
    search = make(backend, settings=settings.model_copy(update={"accept_value": 1.0}))
    run(search)

    assert search.counts.forwarded_tokens == backend.forwarded_tokens
    assert backend.forwarded_tokens / len(backend.distinct) <= 1.02


@both
def test_a_cache_of_a_quarter_of_the_need_changes_nothing_but_the_cost(settings: RainSettings) -> None:
    roomy = Recording(n_sequences=2000, n_cells=100_000)
    search = make(roomy, settings=settings)
    run(search)
    tight = Recording(n_cells=max(len(roomy.distinct) // 4, 120), n_sequences=16)
    again = make(tight, settings=settings)
    run(again)

    assert again.committed == search.committed
    assert tight.forwarded_tokens / len(tight.distinct) <= 2


@both
def test_several_searches_share_batches_and_find_what_each_finds_alone(settings: RainSettings) -> None:
    alone = [make(settings=settings, prompt=f"Prompt {number}") for number in range(8)]
    calls = 0
    for search in alone:
        run(search)
        calls += search._backend.forward_calls
    backend = ToyBackend(n_ctx=4096, n_sequences=256)
    together = [make(backend, settings=settings, prompt=f"Prompt {number}") for number in range(8)]
    drive_together([search.run() for search in together], backend)

    assert [search.committed for search in together] == [search.committed for search in alone]
    assert backend.forward_calls < calls / 2
    assert backend.live_branches == 0


def test_a_model_that_cannot_rewind_finds_the_same() -> None:
    search, other = make(settings=OURS), make(ToyBackend(n_ctx=4096, n_sequences=32, rewinds=False), settings=OURS)
    run(search)
    run(other)

    assert other.committed == search.committed


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_models.write_llama(tmp_path_factory.mktemp("models") / "llama.gguf")


@both
def test_llama_cpp_finds_the_same_in_batches_and_computes_nothing_twice(llama: Path, settings: RainSettings) -> None:
    def loaded() -> LlamaCppBackend:
        return LlamaCppBackend(llama, n_ctx=16_000, n_sequences=256, n_threads=1, exact=True)

    alone = []
    for number in range(8):
        with loaded() as backend:
            search = make(backend, settings=settings, prompt=f"Prompt {number}")
            run(search)
            alone.append(search.committed)
            assert search.counts.forwarded_tokens == backend.forwarded_tokens
    with loaded() as backend:
        together = [make(backend, settings=settings, prompt=f"Prompt {number}") for number in range(8)]
        drive_together([search.run() for search in together], backend)

    assert [search.committed for search in together] == alone


# --- Going on later


@both
def test_a_search_goes_on_from_what_was_committed(settings: RainSettings) -> None:
    first = make(settings=settings)
    drive(first.commit(), first._backend)
    first.close()

    second = make(settings=settings).resume(first.committed)
    commits = run(second)

    assert second.committed[: len(first.committed)] == first.committed
    assert second.text.startswith(first.text.rstrip("\ufffd"))
    assert commits
    assert second.root.depth == len(second.committed)


def test_a_finished_reply_is_not_gone_on_with() -> None:
    search = make(settings=OURS).resume([(72, 105), (33, ToyBackend.END)])

    assert search.stop_reason == "stop"
    assert search.text == "Hi!"
    assert run(search) == []


def test_only_a_fresh_search_can_resume() -> None:
    search = make(settings=OURS)
    drive(search.commit(), search._backend)

    with pytest.raises(SettingsError, match="has begun"):
        search.resume([(1,)])
    with pytest.raises(SettingsError, match="200 tokens, but there is room for 90"):
        make(settings=OURS).resume([(1,) * 200])
    search.close()


# --- Where the reply ends


class Says(ToyBackend):
    """A model that says this and ends, though now and then something else is likely, too."""

    def __init__(self, words: str, *, prompt: str = "Say something.") -> None:
        super().__init__(n_ctx=4096, n_sequences=256)
        script = [*words.encode(), self.END]
        plain = self.memory.logits

        def logits(tokens: Sequence[int]) -> Logits:
            row = plain(tokens).copy()
            at = len(tokens) - len(prompt)
            row[script[at] if 0 <= at < len(script) else self.END] += 12
            return row

        self.memory.logits = logits


def test_text_after_the_end_token_does_not_count() -> None:
    search = make(Says("Hello there"), settings=OURS, value=always)
    commits = run(search)

    assert (search.text, search.stop_reason) == ("Hello there", "stop")
    assert commits[-1].tokens[-1] == ToyBackend.END
    assert all(ToyBackend.END not in candidate.tokens for candidate in search._session.asked)
    assert search._session.asked[-1].finished


def test_a_finished_leaf_is_visited_again_but_never_expanded() -> None:
    search = make(Says("Hi"), settings=small(max_new_tokens=50, max_children=1), value=never)
    (commit,) = run(search)

    assert commit.text == "Hi"
    assert commit.visits > 1
    assert commit.counts.evaluations == 1


@pytest.mark.parametrize("settings", [PAPER, OURS, OURS.model_copy(update={"lengths": (3,)})])
def test_a_stop_text_inside_a_candidate_cuts_it(settings: RainSettings) -> None:
    stopping = settings.model_copy(update={"stop": ("lo w",)})
    search = make(Says("hello world"), settings=stopping, value=always)
    commits = run(search)

    assert (search.text, search.stop_reason) == ("hel", "stop")
    assert "".join(commit.text for commit in commits) == "hel"  # nothing had to be taken back
    ends = [candidate for candidate in search._session.asked if candidate.finished]
    assert {candidate.text for candidate in ends} >= {"hel"}
    assert all("lo w" not in candidate.text for candidate in search._session.asked)
    assert all(bytes(candidate.tokens).decode("utf-8", "replace") == candidate.text for candidate in ends)


def test_what_was_held_back_comes_when_the_reply_ends_without_a_stop_text() -> None:
    settings = OURS.model_copy(update={"stop": ("day!",), "max_new_tokens": 11, "lengths": (4,)})
    search = make(Says("a nice day "), settings=settings, value=always)

    assert "".join(commit.text for commit in run(search)) == "a nice day "


def test_characters_are_not_cut_in_two() -> None:
    settings = OURS.model_copy(update={"lengths": (1,), "max_new_tokens": 40})
    search = make(Says("naïve 東京"), settings=settings, value=always)
    commits = run(search)

    assert "".join(commit.text for commit in commits) == search.text == "naïve 東京"
    assert not any("\ufffd" in commit.text for commit in commits)


def test_the_reply_is_no_longer_than_allowed_and_says_why() -> None:
    search = make(settings=OURS.model_copy(update={"max_new_tokens": 10}), value=always)
    run(search)
    assert (sum(map(len, search.committed)), search.stop_reason) == (10, "length")

    short = make(ToyBackend(n_ctx=60, n_sequences=32), settings=OURS, value=always)
    run(short)
    assert (sum(map(len, short.committed)), short.stop_reason) == (60 - len("Say something."), "context")


# --- What goes wrong


def test_a_context_too_small_is_said_with_three_numbers() -> None:
    class Long(Session):
        prompt_tokens = 480
        question_tokens = 20

    backend = ToyBackend(n_ctx=512)
    with pytest.raises(
        ContextLengthError, match="14 tokens for the prompt, 500 for the judge's own, and 32 for a token"
    ):
        Search(backend, backend.tokenize("Say something."), Long(always), OURS)
    assert backend.live_branches == 0


def test_settings_that_compare_texts_need_embeddings() -> None:
    with pytest.raises(SettingsError, match="give `embed`, or set `similarity` and `add_variance` to None"):
        make(settings=PAPER, embed=None)
    with pytest.raises(SettingsError, match="no tokens"):
        make(settings=OURS, prompt="")


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1.5, -2.0])
def test_what_is_no_value_is_an_error_that_names_the_function(bad: float) -> None:
    later = iter([1.0, 1.0])
    search = make(settings=OURS, value=lambda text: next(later, bad))

    with pytest.raises(JudgeError, match="'test' returned"):
        run(search)
    assert search.text  # what was committed before is not lost
    assert len(search.committed) == 2
    assert search._backend.live_branches == 0


class Miscounting(Session):
    """Returns a value too few, as a batch function that drops a text would."""

    def evaluate(self, candidates):
        return (yield from super().evaluate(candidates))[1:]


def test_as_many_values_as_texts_must_come_back() -> None:
    backend = ToyBackend(n_ctx=4096, n_sequences=256)
    search = Search(backend, backend.tokenize("Say something."), Miscounting(low_letters), OURS)

    with pytest.raises(JudgeError, match=r"'test' returned \d+ values for \d+ texts"):
        run(search)
    assert backend.live_branches == 0


def test_a_search_that_is_left_before_its_end_holds_nothing() -> None:
    with make(settings=OURS) as search:
        drive(search.commit(), search._backend)
        assert search._backend.live_branches > 0

    assert search.text
    assert search._backend.live_branches == 0
    assert search._session.closed == 1


def test_what_is_no_value_can_count_as_unknown() -> None:
    search = make(settings=OURS.model_copy(update={"on_bad_value": "unknown"}), value=lambda text: math.nan)
    commits = run(search)

    assert commits[0].value == 0.0


def test_a_value_function_that_raises_ends_the_search_with_its_name_and_nothing_is_lost() -> None:
    def broken(text: str) -> float:
        if len(search.committed) == 1:
            raise LookupError("no such table")
        return 1.0

    search = make(settings=OURS, value=broken)
    with pytest.raises(JudgeError, match="'test' raised LookupError") as caught:
        run(search)

    assert isinstance(caught.value.__cause__, LookupError)
    assert len(search.committed) == 1
    assert search._backend.live_branches == 0


def all_of(search: Search) -> Steps[None]:
    while (yield from search.commit()) is not None:
        pass


@both
def test_a_search_goes_on_after_a_failure_as_if_there_had_been_none(settings: RainSettings) -> None:
    fails = iter([False] * 12 + [True])

    def flaky(text: str) -> float:
        if next(fails, False):
            raise LookupError
        return low_letters(text)

    search, smooth = make(settings=settings, value=flaky), make(settings=settings)
    with pytest.raises(JudgeError):
        drive(all_of(search), search._backend)
    assert all(node.in_flight == 0 for node in search.root.walk())
    first = drive(search.commit(), search._backend)
    run(search)
    run(smooth)

    assert first is not None
    if settings.leaves == 1:  # then a walk that failed is simply walked again
        assert smooth.committed[0] == search.committed[0]


def test_an_engine_that_fails_is_told_and_releases_everything() -> None:
    class Failing(ToyBackend):
        def forward(self, branches: Sequence[Branch]) -> Logits:
            if self.forward_calls > 20:
                raise BackendError("the engine failed")
            return super().forward(branches)

    search = make(Failing(n_ctx=4096, n_sequences=256), settings=OURS)
    with pytest.raises(BackendError, match="the engine failed"):
        run(search)
    assert search._backend.live_branches == 0


def test_ctrl_c_keeps_the_text_and_releases_everything() -> None:
    def interrupted(text: str) -> float:
        if len(search.committed) == 1:
            raise KeyboardInterrupt
        return 1.0

    search = make(settings=OURS, value=interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(search)

    assert search.text
    assert search._backend.live_branches == 0


@both
def test_a_deadline_in_mid_search_ends_with_the_best_text_so_far(settings: RainSettings) -> None:
    ticks = iter(range(10_000))
    timed = settings.model_copy(update={"max_seconds": 60.0, "accept_value": 1.0, "max_new_tokens": 400})
    search = make(settings=timed, clock=lambda: next(ticks))
    commits = run(search)

    assert search.stop_reason == "deadline"
    assert search.text
    assert commits[-1].reason == "deadline"
    assert "".join(commit.text for commit in commits) == search.text
    assert next(ticks) < 80
    assert search._backend.live_branches == 0


def test_a_deadline_that_is_over_at_once_still_gives_a_first_set() -> None:
    ticks = iter(range(0, 10_000, 100))
    search = make(settings=OURS.model_copy(update={"max_seconds": 1.0}), clock=lambda: next(ticks))
    commits = run(search)

    assert search.text
    assert search.counts.iterations == 1
    assert len(commits) in (1, 2)  # the second brings what was held back


@both
def test_a_limit_on_forwarded_tokens_is_kept_to_a_step(settings: RainSettings) -> None:
    limited = settings.model_copy(update={"max_forwarded_tokens": 300, "accept_value": 1.0, "max_new_tokens": 400})
    search = make(settings=limited)
    run(search)

    assert search.stop_reason == "forwarded_tokens"
    assert 300 <= search.counts.forwarded_tokens <= 300 + settings.candidates + settings.add
    assert search.text
