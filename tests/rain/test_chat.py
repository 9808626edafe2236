"""ChatRain: LangChain's standard tests, what it streams, how it ends, what it is judged by, and many calls at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gguf_models
import psutil
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from talkers import choosing, liking, open_branches, small, variety, watchdog

from correction_graphs import Verdict
from correction_graphs.backends.llama_cpp import LlamaCppBackend
from correction_graphs.checkers.adapters import as_checker
from correction_graphs.errors import (
    BackendError,
    ContextLengthError,
    ConversationError,
    ModelFileError,
    SearchError,
    SettingsError,
    TemplateError,
)
from correction_graphs.rain.chat import ChatRain
from correction_graphs.rain.settings import RainSettings
from correction_graphs.testing import ToyBackend

SEARCH = small(max_new_tokens=24, lengths=(6,), candidates=2, max_iterations=6)
"""A search that rewinds, on models that say anything."""

TINY = small(max_new_tokens=12, lengths=(4,), candidates=2, max_iterations=6)


GOOD = liking("good")


def rain_of(message: AIMessage) -> dict[str, Any]:
    return message.response_metadata["rain"]


def ending(message: AIMessage) -> str:
    return message.response_metadata["finish_reason"]


def says(*texts: str, judge: Any = GOOD, settings: RainSettings | None = None, **others: Any) -> ChatRain:
    return ChatRain(backend=choosing(*texts), judge=judge, settings=settings or small(), **others)


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_models.write_llama(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def tiny(tiny_path: Path) -> Iterator[ChatRain]:
    """On a real model without quantization, with random weights."""
    with LlamaCppBackend(tiny_path, n_threads=1, exact=True) as backend:
        yield ChatRain(backend=backend, judge=variety, settings=TINY)
        assert open_branches(backend) == 0


async def four_ways(model: ChatRain, asked: Any, **settings: Any) -> list[AIMessage]:
    first, *others = model.stream(asked, **settings)
    streamed: AIMessageChunk = sum(others, first)
    pieces = [piece async for piece in model.astream(asked, **settings)]
    return [
        model.invoke(asked, **settings),
        await model.ainvoke(asked, **settings),
        streamed,
        sum(pieces[1:], pieces[0]),
    ]


# LangChain's standard tests


class Standard:
    """What is true of ChatRain: it answers in text."""

    chat_model_class = ChatRain
    has_tool_calling = False
    has_tool_choice = False
    has_structured_output = False
    supports_json_mode = False
    supports_model_override = False  # the model is the loaded file


class TestStandardUnit(Standard, ChatModelUnitTests):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"backend": choosing("Hello."), "judge": variety}


class TestStandardIntegration(Standard, ChatModelIntegrationTests):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"backend": choosing("Hello there. It is good.", "Well."), "judge": liking("good")}


@pytest.mark.gguf
class TestStandardIntegrationOnALlama(Standard, ChatModelIntegrationTests):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _loaded(cls, tiny_path: Path) -> Iterator[None]:
        with LlamaCppBackend(tiny_path, n_threads=1) as cls.backend:
            yield
            assert open_branches(cls.backend) == 0

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"backend": self.backend, "judge": variety, "settings": TINY}


# One answer, however it is asked for


async def test_a_rejected_answer_is_left_for_a_better_one() -> None:
    model = says("It is bad.", "It is good. Yes.")

    for reply in await four_ways(model, "hi"):
        assert reply.text == "It is good. Yes."
        assert ending(reply) == "stop"
        rain = rain_of(reply)
        assert rain["stop_reason"] == "stop"
        assert rain["value"] == 1.0
        assert rain["rewinds"] >= 1
        assert rain["iterations"] >= rain["evaluations"] >= 3
        assert reply.usage_metadata["input_tokens"] == len(
            model.backend.chat_tokens([{"role": "user", "content": "hi"}])
        )
        assert reply.usage_metadata["output_tokens"] >= len("It is good. Yes.")
    assert open_branches(model.backend) == 0


def test_what_was_forwarded_is_told() -> None:
    model = says("It is bad.", "It is good. Yes.")

    reply = model.invoke("hi")

    assert rain_of(reply)["forwarded_tokens"] == model.backend.forwarded_tokens > reply.usage_metadata["total_tokens"]
    assert rain_of(reply)["judge_tokens"] == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
async def test_answers_are_the_same_in_every_way(seed: int) -> None:
    model = ChatRain(backend=ToyBackend(n_cells=4096, n_sequences=64), judge=variety, settings=SEARCH, seed=seed)

    replies = await four_ways(model, "hi")

    assert len({reply.text for reply in replies}) == 1
    assert len({rain_of(reply)["rewinds"] for reply in replies}) == 1
    assert len({reply.usage_metadata["output_tokens"] for reply in replies}) == 1
    assert rain_of(replies[0])["rewinds"] > 0


@pytest.mark.gguf
async def test_answers_of_a_llama_are_the_same_in_every_way(tiny: ChatRain) -> None:
    replies = await four_ways(tiny, "hi")
    assert len({reply.text for reply in replies}) == 1
    assert rain_of(replies[0])["rewinds"] > 0


@pytest.mark.gguf
def test_smollm2_judges_itself(smollm2_path: Path) -> None:
    settings = small(max_new_tokens=16, lengths=(8,), max_iterations=2, fresh_iterations=1, leaves=1, add=1)
    model = ChatRain.from_gguf(
        smollm2_path, n_ctx=2048, n_sequences=16, n_threads=1, judge="harmless", settings=settings
    )
    with model.backend:
        pieces = list(model.stream("Name a colour."))
        assert "".join(piece.text for piece in pieces).strip()
        last = pieces[-1]
        assert last.response_metadata["rain"]["evaluations"] >= 1
        assert last.response_metadata["rain"]["judge_tokens"] > 0
        assert -1 <= last.response_metadata["rain"]["value"] <= 1
        assert last.usage_metadata["output_tokens"] <= 16
        assert open_branches(model.backend) == 0


@pytest.mark.gguf
async def test_a_gguf_file_is_loaded_with_its_settings(tiny_path: Path) -> None:
    model = ChatRain.from_gguf(
        tiny_path, n_ctx=128, n_sequences=4, n_threads=1, judge=variety, settings=TINY, max_tokens=5, seed=3
    )
    with model.backend:
        reply = model.invoke("hi")
        assert reply.usage_metadata["output_tokens"] <= 5
        assert reply.response_metadata["model_name"] == "tiny llama"
        assert (await model.ainvoke("hi")).text == reply.text


# Settings


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", -0.1),
        ("temperature", "warm"),
        ("seed", -1),
        ("max_tokens", 0),
        ("timeout", 0),
        ("settings", "paper"),
    ],
)
def test_a_setting_outside_its_range_is_named_with_what_was_given(setting: str, value: Any) -> None:
    model = says("Hello.")

    for attempt in (
        lambda: says("Hello.", **{setting: value}),
        lambda: model.invoke("hi", **{setting: value}),
        lambda: list(model.stream("hi", **{setting: value})),
        lambda: model.bind(**{setting: value}).invoke("hi"),
    ):
        with pytest.raises(SettingsError, match=f"`{setting}"):
            attempt()
    assert model.backend.forward_calls == 0


def test_wrong_arguments_fail_when_the_model_is_made() -> None:
    backend = choosing("Hello.")
    with pytest.raises(TemplateError, match="kindly"):
        ChatRain(backend=backend, judge="kindly")
    with pytest.raises(SettingsError, match=r"^the value function is 3; "):
        ChatRain(backend=backend, judge=3)
    with pytest.raises(SettingsError, match=r"^RAIN settings: lengths.0: "):
        ChatRain(backend=backend, judge=variety, settings={"lengths": (0,)})
    with pytest.raises(SettingsError, match="similarity"):
        ChatRain(backend=backend, judge=variety, similarity="cosine")
    with pytest.raises(SettingsError, match="`tempratur`"):
        ChatRain(backend=backend, judge=variety, tempratur=1)
    with pytest.raises(SettingsError, match="from_gguf"):
        ChatRain(backend="model.gguf", judge=variety)
    with pytest.raises(SettingsError, match=r"^`backend` is 3; give a RewindableBackend, or use `from_gguf\(path\)`$"):
        ChatRain(backend=3)
    with pytest.raises(SettingsError, match="'tempratur'"):
        ChatRain(backend=backend, judge=variety).invoke("hi", tempratur=1)
    with pytest.raises(SettingsError, match="'judges'"):
        ChatRain.from_gguf("nowhere.gguf", judges=variety)
    with pytest.raises(ModelFileError, match="nowhere"):
        ChatRain.from_gguf("nowhere.gguf", judge=variety)


@pytest.mark.gguf
@pytest.mark.parametrize("n_sequences", [1, 100_000])
def test_more_sequences_than_llama_cpp_takes_are_refused(tiny_path: Path, n_sequences: int) -> None:
    with pytest.raises(SettingsError, match="n_sequences"):
        ChatRain.from_gguf(tiny_path, n_sequences=n_sequences, n_threads=1, judge=variety)


def test_settings_of_one_call_do_not_stay() -> None:
    model = says("It is good, and long.", settings=small(lengths=(4,)))
    whole = model.invoke("hi")

    short = model.invoke("hi", max_tokens=5)

    assert (short.text, ending(short)) == ("It is", "length")
    assert model.invoke("hi", settings=small(max_new_tokens=2)).text == "It"
    assert model.invoke("hi").text == whole.text == "It is good, and long."


def test_seed_and_temperature_of_a_call_are_those_of_the_search() -> None:
    backend = ToyBackend(n_cells=4096, n_sequences=64)
    model = ChatRain(backend=backend, judge=variety, settings=SEARCH)

    assert model.invoke("hi", seed=1).text == model.invoke("hi", settings=SEARCH.model_copy(update={"seed": 1})).text
    assert len({model.invoke("hi", seed=seed).text for seed in range(3)}) > 1
    hot = SEARCH.model_copy(update={"temperature": 50.0})
    assert model.invoke("hi", temperature=50.0).text == model.invoke("hi", settings=hot).text
    assert model.invoke("hi", temperature=0).text == model.invoke("hi").text, "0 leaves the settings' own"
    assert model.invoke("hi", temperature=None, max_tokens=None, stream=True, model="x").text == model.invoke("hi").text


def test_identity_names_the_settings_and_hides_the_key() -> None:
    model = says("Hello.", judge="harmless", api_key="secret", seed=7)

    assert model._llm_type == "chat-rain"
    assert model._identifying_params["seed"] == 7
    assert "harmless" in model._identifying_params["judge"]
    assert model._get_ls_params()["ls_provider"] == "llama.cpp"
    assert "secret" not in repr(model)
    assert model.get_num_tokens("hello") == 5


# How an answer ends


@pytest.mark.parametrize("length", [1, 2, 3, 7, 32])
@pytest.mark.parametrize(
    ("stop", "text", "reason"),
    [
        (["END"], "one ", "stop"),
        (["END", "one"], "", "stop"),
        (["ND t"], "one E", "stop"),
        (["EN!", "END"], "one ", "stop"),
        (["nothing of it"], "one END two ENx", "stop"),
        (["ENxyz"], "one END two ENx", "stop"),  # held back at the end in vain
        ([""], "one END two ENx", "stop"),
        ([], "one END two ENx", "stop"),
        ("END", "one ", "stop"),
    ],
)
async def test_stop_texts_end_the_answer_and_are_not_shown(length: int, stop: Any, text: str, reason: str) -> None:
    """However they lie across token sets; and what was streamed is never taken back."""
    settings = small(lengths=(length,), ends=("~",), accept_value=-0.5)  # takes an empty reply, too
    always = {"judge": lambda text: 1.0, "settings": settings}
    replies = await four_ways(says("one END two ENx", **always), "hi", stop=stop)
    if not isinstance(stop, str):
        replies += await four_ways(says("one END two ENx", stop=stop, **always), "hi")

    assert {reply.text for reply in replies} == {text}
    assert {ending(reply) for reply in replies} == {reason}


def test_stop_texts_come_on_top_of_those_of_the_settings() -> None:
    model = says("one two three", judge=lambda text: 1.0, settings=small(stop=("three",)))

    assert model.invoke("hi").text == "one two "
    assert model.invoke("hi", stop=["two"]).text == "one "
    assert model.invoke("hi", stop=["four"]).text == "one two "


def test_a_stop_text_in_a_rejected_branch_ends_nothing() -> None:
    model = says("bad END", "bad enough, but good.", settings=small(lengths=(8,), ends=("~",)))

    reply = model.invoke("hi", stop=["END"])

    assert (reply.text, ending(reply)) == ("bad enough, but good.", "stop")
    assert rain_of(reply)["rewinds"] > 0


def test_an_end_token_in_a_rewound_branch_ends_nothing() -> None:
    model = says("No.", "No. But it is good to ask, and I say yes.", settings=small(lengths=(12,), ends=("~",)))

    reply = model.invoke("hi")

    assert reply.text == "No. But it is good to ask, and I say yes."
    assert rain_of(reply)["rewinds"] > 0


def test_a_full_context_cuts_the_answer_off() -> None:
    backend = choosing("x" * 400, n_ctx=64)

    reply = ChatRain(backend=backend, judge=lambda text: 1.0, settings=small(), max_tokens=None).invoke("hi")

    assert ending(reply) == "length"
    assert rain_of(reply)["stop_reason"] == "context"
    assert reply.usage_metadata["total_tokens"] == 64
    assert reply.text == "x" * reply.usage_metadata["output_tokens"]


async def test_a_timeout_gives_the_best_text_so_far() -> None:
    backend = choosing("x" * 800, seconds_a_row=0.005)
    model = ChatRain(backend=backend, judge=lambda text: 0.0, settings=small(lengths=(4,)), timeout=0.3)

    for reply in (model.invoke("hi"), await model.ainvoke("hi")):
        assert ending(reply) == "timeout"
        assert rain_of(reply)["stop_reason"] == "deadline"
        assert reply.text == "x" * len(reply.text)
        assert 0 < len(reply.text) < 400
    assert open_branches(backend) == 0


def test_a_deadline_in_the_first_search_still_gives_a_text() -> None:
    backend = choosing("x" * 800, seconds_a_row=0.005)

    reply = ChatRain(backend=backend, judge=lambda text: 0.0, settings=small(), timeout=1e-6).invoke("hi")

    assert reply.text == "x" * 32
    assert ending(reply) == "timeout"


@pytest.mark.parametrize("text", ["Grüße, 你好, नमस्ते.", "👩🏽‍🚀🎉 yes", "a\r\n\tb", " leading and trailing "])
async def test_characters_across_token_sets_come_out_whole(text: str) -> None:
    model = says(text, judge=lambda text: 1.0, settings=small(lengths=(3,), ends=("~",)))

    pieces = [piece.text for piece in model.stream("hi")]

    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)
    assert {reply.text for reply in await four_ways(model, "hi")} == {text}


# Streaming


def test_committed_text_is_streamed_before_the_next_is_searched() -> None:
    model = says("I am bad.", "I am good. It is so good. Yes.")
    stream, seen = model.stream("hi"), []
    for piece in stream:
        seen.append((piece.text, model.backend.forward_calls))  # noqa: PERF401  (calls change while it is read)
    texts = [text for text, _ in seen if text]

    assert len(texts) == 3
    assert "".join(texts) == "I am good. It is so good. Yes."
    calls = [calls for _, calls in seen]
    assert calls[0] < calls[1] < calls[2], "each piece came out while the next was not searched yet"


@pytest.mark.parametrize("seed", range(5))
def test_what_is_streamed_on_random_bytes_adds_up(seed: int) -> None:
    """A toy says any bytes, also such that are no characters, and begins its stop texts often."""
    model = ChatRain(
        backend=ToyBackend(n_cells=4096, n_sequences=64),
        judge=variety,
        settings=SEARCH,
        seed=seed,
        stop=["\ufffda", "a"],
    )

    streamed = "".join(piece.text for piece in model.stream("hi"))

    assert streamed == model.invoke("hi").text
    assert streamed


# Judges


def as_async(judge: Callable[[str], Any]) -> Callable[[str], Any]:
    async def ajudge(text: str) -> Any:
        await asyncio.sleep(0)
        return judge(text)

    return ajudge


def no_sync(text: str) -> float:
    raise AssertionError("this runnable is for ainvoke")


JUDGES = {
    "function": liking("good"),
    "async function": as_async(liking("good")),
    "truth": lambda text: "good" in text,
    "runnable": RunnableLambda(liking("good")),
    "async runnable": RunnableLambda(liking("good"), afunc=as_async(liking("good"))),
    "checker": as_checker(lambda request: Verdict(passed="good" in request.answer, critique="Be good.")),
}


@pytest.mark.parametrize("kind", JUDGES)
async def test_any_judge_finds_the_good_answer(kind: str) -> None:
    model = says("It is bad.", "It is good. Yes.", judge=JUDGES[kind])

    replies = await four_ways(model, "hi")

    assert {reply.text for reply in replies} == {"It is good. Yes."}
    assert {rain_of(reply)["value"] for reply in replies} == {1.0}


async def test_a_judge_that_is_async_only_works_where_it_can() -> None:
    model = says("It is bad.", "It is good.", judge=RunnableLambda(no_sync, afunc=as_async(liking("good"))))

    assert (await model.ainvoke("hi")).text == "It is good."
    assert [reply.text for reply in await model.abatch(["hi", "ho"])] == ["It is good."] * 2
    with pytest.raises(SearchError):
        model.invoke("hi")


def test_a_checker_sees_the_conversation() -> None:
    asked = []

    def check(request: Any) -> Verdict:
        asked.append([message.text for message in request.messages])
        return Verdict(passed=True)

    says("Hello.", judge=as_checker(check)).invoke([HumanMessage("Who?"), AIMessage("Me."), HumanMessage("Why?")])

    assert asked == [["Who?", "Me.", "Why?"]]


class BrokenError(Exception):
    pass


def failing_after(judge: Callable[[str], float], good: str, outcome: Any) -> Callable[[str], Any]:
    """A judge that fails as soon as a text goes on after `good`."""

    def judged(text: str) -> Any:
        if len(text) <= len(good):
            return judge(text)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return judged


@pytest.mark.parametrize("outcome", [BrokenError("no idea"), math.nan, math.inf, 3, "fine"], ids=repr)
@pytest.mark.parametrize("kind", [lambda judge: judge, as_async, RunnableLambda], ids=["function", "async", "runnable"])
async def test_a_judge_that_fails_costs_nothing_that_was_committed(outcome: Any, kind: Any) -> None:
    judge = kind(failing_after(liking("good"), "It is good.", outcome))
    model = says("It is good. And then. More", judge=judge)

    async def drain() -> None:
        async for piece in model.astream("hi"):
            seen.append(piece.text)  # noqa: PERF401  (what was seen before an error counts)

    seen: list[str] = []
    for attempt in (lambda: model.invoke("hi"), lambda: list(model.stream("hi"))):
        with pytest.raises(SearchError) as caught:
            attempt()
        assert caught.value.result.text == "It is good."
        assert caught.value.result.stop_reason == "failed"
        assert "JudgeError" in caught.value.result.error
        assert len(caught.value.result.commits) == 1
        assert ".result.text" in str(caught.value)
    for attempt in (lambda: model.ainvoke("hi"), drain):
        with pytest.raises(SearchError) as caught:
            await attempt()
        assert caught.value.result.text == "It is good."
    assert seen == ["It is good."]
    assert open_branches(model.backend) == 0


@pytest.mark.parametrize("judge", [lambda text: math.nan, RunnableLambda(lambda text: 1.5)])
def test_a_bad_value_counts_as_unknown_where_that_is_wanted(judge: Any) -> None:
    with pytest.raises(SearchError, match="give a number from -1 to 1, or set `on_bad_value` to 'unknown'"):
        says("Hello.", judge=judge, settings=small(on_bad_value="raise")).invoke("hi")

    assert says("Hello.", judge=judge, settings=small(on_bad_value="unknown")).invoke("hi").text == "Hello."


def test_a_judge_that_interrupts_leaves_the_model_usable() -> None:
    def interrupted(text: str) -> float:
        raise KeyboardInterrupt

    model = says("Hello.", judge=interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.invoke("hi")

    assert open_branches(model.backend) == 0
    assert ChatRain(backend=model.backend, judge=lambda text: 1.0).invoke("hi").text == "Hello."


# Bad input


def test_a_context_that_is_too_small_is_told_with_the_three_numbers() -> None:
    backend = ToyBackend(n_ctx=100, n_sequences=64)
    prompt = len(backend.chat_tokens([{"role": "user", "content": "x" * 80}]))
    with pytest.raises(ContextLengthError) as caught:
        ChatRain(backend=backend, judge=variety, settings=small(lengths=(8,))).invoke("x" * 80)
    for number in (prompt, 8, 100):
        assert str(number) in str(caught.value)
    assert "n_ctx" in str(caught.value)
    assert open_branches(backend) == backend.forward_calls == 0


@pytest.mark.gguf
async def test_a_context_too_small_for_the_judge_is_told_with_the_three_numbers(tiny_path: Path) -> None:
    with LlamaCppBackend(tiny_path, n_ctx=512, n_sequences=16, n_threads=1) as backend:
        model = ChatRain(backend=backend, judge="harmless")
        prompt = len(backend.chat_tokens([{"role": "user", "content": "hi"}]))
        numbers = (
            rf" {prompt} tokens for the prompt, \d{{4}} for the judge's own, and 64 for a token set .* 512;.* `n_ctx`"
        )
        with pytest.raises(ContextLengthError, match=numbers):
            model.invoke("hi")
        with pytest.raises(ContextLengthError, match=numbers):
            await model.ainvoke("hi")
        assert open_branches(backend) == 0


def test_messages_it_cannot_read_are_refused() -> None:
    model = says("Hello.")
    with pytest.raises(ConversationError, match="at least one"):
        model.invoke([])
    with pytest.raises(ConversationError, match="image"):
        model.invoke([HumanMessage([{"type": "image", "url": "https://example.org/cat.png"}])])
    assert model.backend.forward_calls == 0


@pytest.mark.gguf
@pytest.mark.parametrize(
    "write", [gguf_models.write_mamba, gguf_models.write_hybrid, gguf_models.write_sliding], ids=lambda w: w.__name__
)
async def test_models_that_cannot_rewind_give_the_same_text_each_time(tmp_path: Path, write: Any) -> None:
    with LlamaCppBackend(write(tmp_path / "tiny.gguf"), n_ctx=256, n_sequences=32, n_threads=1, exact=True) as backend:
        model = ChatRain(backend=backend, judge=variety, settings=TINY)
        replies = await four_ways(model, "hi")
        assert len({reply.text for reply in replies}) == 1
        assert rain_of(replies[0])["rewinds"] > 0
        assert open_branches(backend) == 0


def test_a_memory_that_cannot_rewind_gives_the_same_text_as_one_that_can() -> None:
    texts = {
        ChatRain(backend=ToyBackend(n_cells=8192, n_sequences=64, rewinds=rewinds), judge=variety, settings=SEARCH)
        .invoke("hi")
        .text
        for rewinds in (True, False)
    }
    assert len(texts) == 1


@pytest.mark.parametrize("n_cells", [70, 100, 4096])
def test_a_cache_that_is_too_small_gives_the_same_text(n_cells: int) -> None:
    backend = ToyBackend(n_ctx=64, n_cells=n_cells, n_sequences=4)
    roomy = ToyBackend(n_ctx=64, n_cells=8192, n_sequences=64)

    one, other = (ChatRain(backend=each, judge=variety, settings=SEARCH).invoke("hi") for each in (backend, roomy))

    assert one.text == other.text
    assert backend.forwarded_tokens >= roomy.forwarded_tokens


# Interruptions


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BackendError("no room"), MemoryError()])
@pytest.mark.parametrize("at", [1, 3, 12])
def test_an_error_in_a_step_leaves_the_model_usable(monkeypatch, error: BaseException, at: int) -> None:
    model = says("It is bad.", "It is good. Yes.")
    compute, calls = model.backend.memory.compute, []

    def failing(runs: Any) -> Any:
        calls.append(runs)
        if len(calls) == at:
            raise error
        return compute(runs)

    monkeypatch.setattr(model.backend.memory, "compute", failing)

    with pytest.raises((type(error), SearchError)):
        list(model.stream("hi"))

    assert open_branches(model.backend) == 0
    assert model.invoke("hi").text == "It is good. Yes."


@pytest.mark.gguf
def test_an_interrupted_llama_answers_as_before(tiny: ChatRain, monkeypatch) -> None:
    before = tiny.invoke("Name a colour.").text
    forward, calls = tiny.backend.forward, []

    def interrupted(branches: Any) -> Any:
        calls.append(branches)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(branches)

    monkeypatch.setattr(tiny.backend, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny.invoke("Name a colour.")

    assert open_branches(tiny.backend) == 0
    assert tiny.invoke("Name a colour.").text == before


@pytest.mark.parametrize("way", ["ainvoke", "astream", "abatch"])
async def test_a_cancelled_call_stops_and_releases_everything(way: str) -> None:
    backend = choosing("x" * 900, seconds_a_row=0.002)
    model = ChatRain(backend=backend, judge=lambda text: 0.0)
    seen = []

    async def read() -> None:
        async for piece in model.astream("hi"):
            seen.append(piece.text)  # noqa: PERF401  (what was seen before an error counts)

    calls = {
        "ainvoke": lambda: model.ainvoke("hi"),
        "astream": read,
        "abatch": lambda: model.abatch(["hi", "ho", "he"]),
    }
    call = asyncio.ensure_future(calls[way]())
    await asyncio.sleep(0.3)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(0.05)

    assert open_branches(backend) == 0
    steps = backend.forward_calls
    assert steps > 0
    await asyncio.sleep(0.1)
    assert backend.forward_calls == steps
    assert (await model.ainvoke("hi", max_tokens=2)).text == "xx"


async def test_cancelling_one_of_several_leaves_the_others_alone() -> None:
    backend = choosing("It is so good.", seconds_a_row=0.002)
    model = ChatRain(backend=backend, judge=lambda text: 0.0)
    alone = model.invoke("hi").text
    calls = [asyncio.ensure_future(model.ainvoke("hi")) for _ in range(4)]
    await asyncio.sleep(0.02)

    calls[1].cancel()
    outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)

    assert isinstance(outcomes.pop(1), asyncio.CancelledError)
    assert [outcome.text for outcome in outcomes] == [alone] * 3
    assert open_branches(backend) == 0


async def test_a_call_that_is_cancelled_again_and_again_releases_everything() -> None:
    backend = choosing("x" * 900, seconds_a_row=0.05)
    call = asyncio.create_task(ChatRain(backend=backend, judge=lambda text: 0.0).ainvoke("hi"))
    await asyncio.sleep(0.02)

    for _ in range(3):
        call.cancel()
        await asyncio.sleep(0.005)
    with pytest.raises(asyncio.CancelledError):
        await call

    assert open_branches(backend) == 0


def test_a_closed_or_forgotten_stream_releases_everything() -> None:
    model = says("It is good. " * 8)
    stream = model.stream("hi")
    assert next(stream).text
    assert open_branches(model.backend) > 0
    stream.close()
    assert open_branches(model.backend) == 0
    for _ in model.stream("hi"):
        break
    assert open_branches(model.backend) == 0


async def test_a_closed_async_stream_releases_everything() -> None:
    model = says("It is good. " * 8)

    async with aclosing(model.astream("hi")) as stream:
        async for _ in stream:
            assert open_branches(model.backend) > 0
            break
    await asyncio.sleep(0.01)

    assert open_branches(model.backend) == 0


def test_a_closed_backend_says_so() -> None:
    model = says("Hello.")
    model.backend.close()
    with pytest.raises(BackendError, match="closed"):
        model.invoke("hi")


# Many at once

QUESTIONS = [f"Question {number}: what is {'so ' * (number % 3)}good?" for number in range(8)]


@pytest.mark.gguf
@pytest.mark.parametrize("mode", ["batch", "abatch"])
async def test_a_batch_gives_the_same_texts_for_fewer_forwards(tiny_path: Path, mode: str) -> None:
    def fresh() -> LlamaCppBackend:
        return LlamaCppBackend(tiny_path, n_threads=1, n_sequences=256, exact=True)

    with fresh() as backend:
        model = ChatRain(backend=backend, judge=variety, settings=TINY)
        alone = [model.invoke(question).text for question in QUESTIONS]
        calls_alone = backend.forward_calls
    assert len(set(alone)) == len(alone)

    with fresh() as backend, watchdog():
        model = ChatRain(backend=backend, judge=variety, settings=TINY)
        replies = model.batch(QUESTIONS) if mode == "batch" else await model.abatch(QUESTIONS)
        assert [reply.text for reply in replies] == alone
        assert backend.forward_calls < calls_alone / 3
        assert open_branches(backend) == 0


def toy() -> ToyBackend:
    return ToyBackend(n_cells=16384, n_sequences=512)


@pytest.fixture(scope="module")
def alone() -> tuple[list[str], int]:
    """What a toy answers to each question alone, and in how many forwards."""
    backend = toy()
    model = ChatRain(backend=backend, judge=variety, settings=SEARCH)
    return [model.invoke(question).text for question in QUESTIONS], backend.forward_calls


@pytest.mark.parametrize("mode", ["batch", "abatch"])
async def test_one_that_fails_does_not_disturb_the_others(alone: Any, mode: str) -> None:
    def judge(request: Any) -> float | Verdict:
        if "Question 3" in request.messages[-1].text and len(request.answer) > 8:
            raise BrokenError("no idea")
        return Verdict(passed=None, score=(variety(request.answer) + 1) / 2)

    texts, calls = alone
    backend = toy()
    model = ChatRain(backend=backend, judge=as_checker(judge), settings=SEARCH)
    with watchdog():
        if mode == "batch":
            replies = model.batch(QUESTIONS, return_exceptions=True)
        else:
            replies = await model.abatch(QUESTIONS, return_exceptions=True)

    failed = replies.pop(3)
    assert isinstance(failed, SearchError)
    assert [reply.text for reply in replies] == [text for at, text in enumerate(texts) if at != 3]
    assert backend.forward_calls < calls / 2
    assert open_branches(backend) == 0


@pytest.mark.parametrize("mode", ["batch", "abatch"])
@pytest.mark.parametrize("at_once", [1, 2, 3])
async def test_a_limit_to_how_many_run_at_once_is_kept(alone: Any, mode: str, at_once: int) -> None:
    texts, calls = alone
    backend = toy()
    model = ChatRain(backend=backend, judge=variety, settings=SEARCH)
    config = {"max_concurrency": at_once}
    with watchdog():
        replies = model.batch(QUESTIONS, config) if mode == "batch" else await model.abatch(QUESTIONS, config)
    assert [reply.text for reply in replies] == texts
    assert backend.forward_calls <= calls
    if at_once > 1:
        assert backend.forward_calls < 0.85 * calls


async def test_a_slow_reader_of_a_stream_keeps_nobody_waiting(alone: Any) -> None:
    texts, _ = alone
    backend = toy()
    model = ChatRain(backend=backend, judge=variety, settings=SEARCH)
    with watchdog():
        stream = model.stream(QUESTIONS[0])
        begun = next(stream).text  # and this reader takes its time, with its search half done
        assert [reply.text for reply in model.batch(QUESTIONS[1:])] == texts[1:]
        assert [reply.text for reply in await model.abatch(QUESTIONS[1:])] == texts[1:]
        assert begun + "".join(piece.text for piece in stream) == texts[0]
    assert open_branches(backend) == 0


@pytest.mark.parametrize("n_cells", [None, 400])
def test_many_threads_get_what_they_would_get_alone(alone: Any, n_cells: int | None) -> None:
    """Also when the cache has no room for all of them."""
    texts, _ = alone
    backend = ToyBackend(n_cells=n_cells or 16384, n_sequences=512 if n_cells is None else 8, n_ctx=200)
    model = ChatRain(backend=backend, judge=variety, settings=SEARCH)
    barrier = threading.Barrier(24)

    def ask(number: int) -> str:
        barrier.wait()
        if number % 3:
            return model.invoke(QUESTIONS[number % 8]).text
        return "".join(piece.text for piece in model.stream(QUESTIONS[number % 8]))

    with watchdog(), ThreadPoolExecutor(24) as pool:
        assert list(pool.map(ask, range(24))) == texts * 3
    assert open_branches(backend) == 0


def test_threads_and_event_loops_share_a_backend(alone: Any) -> None:
    texts, _ = alone
    model = ChatRain(backend=toy(), judge=variety, settings=SEARCH)

    def in_a_loop(questions: list[str]) -> list[str]:
        async def ask() -> list[AIMessage]:
            return await model.abatch(questions)

        return [reply.text for reply in asyncio.run(ask())]

    def in_a_thread(questions: list[str]) -> list[str]:
        return [reply.text for reply in model.batch(questions)]

    with watchdog(), ThreadPoolExecutor(4) as pool:
        outcomes = pool.map(lambda ask: ask(QUESTIONS), [in_a_loop, in_a_thread, in_a_loop, in_a_thread])
        assert list(outcomes) == [texts] * 4


async def test_a_call_that_blocks_the_event_loop_of_others_ends(alone: Any) -> None:
    """A plain call in a coroutine waits for searches that cannot go on before it returns: but not for ever."""
    texts, _ = alone
    model = ChatRain(backend=toy(), judge=variety, settings=SEARCH)
    with watchdog():
        other = asyncio.ensure_future(model.ainvoke(QUESTIONS[0]))
        await asyncio.sleep(0.01)
        assert model.invoke(QUESTIONS[1], max_tokens=2).text == model.invoke(QUESTIONS[1], max_tokens=2).text
        assert (await other).text == texts[0]


async def test_a_judge_that_asks_the_same_backend_waits_for_nobody(alone: Any) -> None:
    backend = toy()
    inner = ChatRain(backend=backend, judge=variety, settings=SEARCH, max_tokens=2)

    def judge(text: str) -> float:
        return variety(inner.invoke(text[:4]).text)

    async def ajudge(text: str) -> float:
        return variety((await inner.ainvoke(text[:4])).text)

    with watchdog(120):
        model = ChatRain(backend=backend, judge=judge, settings=SEARCH, max_tokens=8)
        texts = [reply.text for reply in model.batch(QUESTIONS[:3])]
        other = ChatRain(backend=backend, judge=ajudge, settings=SEARCH, max_tokens=8)
        assert [reply.text for reply in await other.abatch(QUESTIONS[:3])] == texts
    assert open_branches(backend) == 0


@pytest.mark.gguf
def test_two_hundred_requests_leave_nothing_behind(tiny_path: Path) -> None:
    process = psutil.Process()
    with LlamaCppBackend(tiny_path, n_threads=1, n_sequences=32) as backend:
        model = ChatRain(backend=backend, judge=variety, settings=TINY)

        def ask(number: int) -> None:
            assert model.invoke(f"Question {number % 40}?").text

        for number in range(60):
            ask(number)
        gc.collect()
        before = process.memory_info().rss
        threads = threading.active_count()
        for number in range(200):
            ask(number)
        gc.collect()
        assert process.memory_info().rss < 1.05 * before
        assert threading.active_count() <= threads
        assert backend.live_branches == 0


def test_threads_of_batches_end_with_them() -> None:
    before = set(threading.enumerate())
    model = ChatRain(backend=toy(), judge=variety, settings=SEARCH)
    model.batch(QUESTIONS[:4])
    for _ in range(100):
        gc.collect()
        left = [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()]
        if not left:
            break
        time.sleep(0.02)
    assert not left


def test_an_abandoned_stream_in_a_finished_event_loop_does_no_harm() -> None:
    model = says("It is good. " * 8)

    async def first_piece() -> str:
        async for piece in model.astream("hi"):
            return piece.text
        return ""

    assert asyncio.run(first_piece()) == "It is good."
    with contextlib.suppress(RuntimeError):
        gc.collect()
    assert open_branches(model.backend) == 0
