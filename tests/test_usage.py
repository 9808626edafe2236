"""What is counted of model calls, what is refused, and how several runs draw on one account."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.caches import InMemoryCache
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult, LLMResult
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

from correction_graphs import Budget, Jury, LLMCritic, Usage, create_cac_graph
from correction_graphs.budget import Price
from correction_graphs.errors import BudgetExceededError, GenerationError, SettingsError
from correction_graphs.testing import ScriptedChatModel
from correction_graphs.usage import SharedBudget, UsageMeter, model_name, refusal_in, require_price, shared_budget

ASK = {"messages": [("user", "What is the capital of Australia?")]}
MODES = pytest.mark.parametrize("mode", ["sync", "async"])
PRICE = Price(input=1_000, output=10_000, cached_input=100)  # so that a handful of tokens shows

REFUSED_EARLY = pytest.mark.filterwarnings("ignore:coroutine 'ahandle_event' was never awaited:RuntimeWarning")
"""LangChain makes the coroutines of all handlers before it awaits the first one, which in these tests refuses the call."""


@pytest.fixture(autouse=True)
def _warnings_belong_to_the_test_that_caused_them(request):
    yield
    if request.node.get_closest_marker("filterwarnings"):
        gc.collect()


async def call(model, mode, asked, **config):
    return model.invoke(asked, config) if mode == "sync" else await model.ainvoke(asked, config)


def reply(text="x", *, tokens_in=1, out=1, cached=0):
    usage = {"input_tokens": tokens_in, "output_tokens": out, "total_tokens": tokens_in + out}
    return AIMessage(text, usage_metadata={**usage, "input_token_details": {"cache_read": cached}})


def silent(text="x"):
    """A reply that does not say what it took."""
    return AIMessage(text)


def priced(money, *names):
    return Budget(money=money, prices=dict.fromkeys(names or ("m",), PRICE))


# What calls cost


def test_counts_below_zero_give_nothing_back():
    meter = UsageMeter(Budget(output_tokens=5))
    model = ScriptedChatModel([reply(tokens_in=-3, out=-1000, cached=-2), reply(out=5), reply()])
    for _ in range(2):
        model.invoke("?", {"callbacks": [meter]})
    assert (meter.usage.input_tokens, meter.usage.output_tokens, meter.usage.cached_tokens) == (1, 5, 0)
    with pytest.raises(BudgetExceededError):
        model.invoke("?", {"callbacks": [meter]})


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)), max_size=6))
def test_the_cost_is_the_sum_over_calls(calls):
    replies = [reply(tokens_in=fresh + cached, out=out, cached=cached) for fresh, out, cached in calls]
    meter = UsageMeter(priced(1e9))
    model = ScriptedChatModel(replies, model_name="m")
    for _ in calls:
        model.invoke("?", {"callbacks": [meter]})

    expected = sum(fresh * 0.001 + out * 0.01 + cached * 0.0001 for fresh, out, cached in calls)
    assert meter.usage.cost == pytest.approx(expected)
    assert meter.usage.model_calls == len(calls)


@MODES
async def test_each_model_has_its_own_price_and_dates_do_not_matter(mode):
    budget = Budget(money=1e9, prices={"small": Price(input=0, output=1e6), "large": Price(input=0, output=5e6)})
    meter = UsageMeter(budget)
    for name in ("small-2025-08-07", "large"):
        await call(ScriptedChatModel([reply()], model_name=name), mode, "?", callbacks=[meter])
    assert meter.usage.cost == 6.0


def test_without_prices_there_is_no_cost():
    meter = UsageMeter(Budget(model_calls=5))
    ScriptedChatModel(["x"], model_name="m").invoke("?", {"callbacks": [meter]})
    assert meter.usage.cost is None


@MODES
async def test_a_model_named_by_its_caller_has_a_price(mode):
    meter = UsageMeter(priced(1e9))
    model = ScriptedChatModel([reply()]).with_config(metadata={"ls_model_name": "m"})
    await call(model, mode, "?", callbacks=[meter])
    assert meter.usage.cost == pytest.approx(0.011)


def test_a_reply_from_langchains_cache_is_free():
    meter = UsageMeter(priced(1e9))
    model = ScriptedChatModel([reply()], model_name="m", cache=InMemoryCache())
    for _ in range(2):
        model.invoke("?", {"callbacks": [meter]})
    assert (len(model.asked), meter.usage.cost) == (1, pytest.approx(0.011))


def test_several_answers_of_one_call_report_it_once():
    class Twice(ScriptedChatModel):
        def _generate(self, *args, **kwargs):
            (one,) = super()._generate(*args, **kwargs).generations
            return ChatResult(generations=[one, one])

    meter = UsageMeter(Budget(input_tokens=100))
    Twice([reply(tokens_in=7)]).invoke("?", {"callbacks": [meter]})
    assert meter.usage.input_tokens == 7


# What is refused


@MODES
async def test_a_model_without_a_price_is_not_called(mode):
    model = ScriptedChatModel(["x"], model_name="other")
    with pytest.raises(BudgetExceededError, match="no price for the model 'other'; add it to `prices`, which has 'm'"):
        await call(model, mode, "?", callbacks=[UsageMeter(priced(1))])
    assert model.asked == []


def test_a_model_that_does_not_tell_its_name_is_not_called():
    model = ScriptedChatModel(["x"])
    with pytest.raises(BudgetExceededError, match="ls_model_name"):
        model.invoke("?", {"callbacks": [UsageMeter(priced(1))]})
    assert model.asked == []


@MODES
async def test_money_ends_a_run_with_the_answer_it_has(mode):
    model = ScriptedChatModel([reply("a"), reply("b"), reply("c")], model_name="m")
    graph = create_cac_graph(model, checker=lambda _: False, budget=priced(0.02))
    out = await call(graph, mode, ASK)

    assert (out["cac"].status, out["messages"][-1].text) == ("budget", "b")
    assert out["cac"].error == "the budget of 0.02 in money is used up"
    assert out["cac"].usage.cost == pytest.approx(0.022)
    assert [done.usage.cost for done in out["cac"].rounds] == [pytest.approx(0.011)] * 2


@MODES
async def test_a_critic_without_a_price_costs_no_answer(mode):
    hidden = ScriptedChatModel(["Verdict: unbiased"], model_name="other")
    judge = RunnableLambda(hidden.invoke)  # the name shows when it is called, not before
    model = ScriptedChatModel([reply("a")], model_name="m")
    out = await call(create_cac_graph(model, checker=LLMCritic(judge), budget=priced(1)), mode, ASK)

    assert (out["cac"].status, out["messages"][-1].text, hidden.asked) == ("budget", "a", [])
    assert "no price for the model 'other'" in out["cac"].error


def test_without_any_answer_the_missing_price_is_told():
    hidden = ScriptedChatModel(["a"], model_name="other")
    graph = create_cac_graph(RunnableLambda(hidden.invoke), checker=lambda _: True, budget=priced(1))
    with pytest.raises(GenerationError, match="no price for the model 'other'"):
        graph.invoke(ASK)


@pytest.mark.parametrize("budget", [priced(1), Budget(output_tokens=100)])
def test_a_model_that_does_not_report_its_tokens_gets_one_call(budget):
    model = ScriptedChatModel([silent("a"), silent("b")], model_name="m")
    out = create_cac_graph(model, checker=lambda _: False, budget=budget).invoke(ASK)

    assert (out["cac"].status, out["messages"][-1].text, len(model.asked)) == ("budget", "a", 1)
    assert "1 of 1 model calls did not report their tokens" in out["cac"].error
    assert out["cac"].usage.unreported_calls == 1


def test_a_model_that_does_not_report_its_tokens_may_be_limited_in_calls():
    model = ScriptedChatModel([silent("a"), silent("b")])
    out = create_cac_graph(model, checker=lambda _: False, budget=Budget(model_calls=2)).invoke(ASK)
    assert (out["cac"].usage.model_calls, out["messages"][-1].text) == (2, "b")


@MODES
async def test_a_call_that_fails_was_made(mode):
    meter = UsageMeter(Budget(model_calls=1, output_tokens=9))
    model = ScriptedChatModel([ConnectionError("down"), "x"])
    with pytest.raises(ConnectionError):
        await call(model, mode, "?", callbacks=[meter])
    assert (meter.usage.model_calls, meter.usage.unreported_calls) == (1, 0)
    with pytest.raises(BudgetExceededError, match="1 model calls is used up"):
        await call(model, mode, "?", callbacks=[meter])


# Names


def test_the_name_found_beforehand_is_the_one_that_callbacks_are_told():
    model = ScriptedChatModel(["x"], model_name="m")
    assert model_name(model) == model_name(model.with_config(tags=["t"])) == "m"
    assert model_name(model.bind(model="n")) == model_name(model.bind(model="n").with_config(tags=["t"])) == "n"
    assert model_name(ScriptedChatModel([]).with_config(metadata={"ls_model_name": "given"})) == "given"
    assert model_name(ScriptedChatModel([])) is model_name(RunnableLambda(str)) is None


def test_a_table_without_the_model_is_found_before_anything_is_called():
    known, unknown = (ScriptedChatModel([], model_name=name) for name in ("m", "other"))
    require_price(priced(1), known, ScriptedChatModel([]), RunnableLambda(str))
    require_price(Budget(model_calls=1), unknown)
    require_price(None, unknown)
    with pytest.raises(SettingsError, match="no price for the model 'other'"):
        require_price(priced(1), known, unknown.bind(stop=["."]))


# Many calls at once


class Gate(BaseChatModel):
    """Holds every call until all callers have either got in or been refused: the worst case for counting."""

    callers: int
    told: int = 0
    made: int = 0
    model_name: str = "m"

    def __init__(self, **fields):
        super().__init__(**fields)
        self._open, self._lock = threading.Event(), threading.Lock()

    _open: threading.Event
    _lock: threading.Lock

    @property
    def _llm_type(self):
        return "gate"

    def tell(self, made):
        with self._lock:
            self.told += 1
            self.made += made
            if self.told == self.callers:
                self._open.set()

    def _generate(self, *_, **__):
        self.tell(made=1)
        assert self._open.wait(30)
        return ChatResult(generations=[ChatGeneration(message=reply())])

    async def _agenerate(self, *_, **__):
        self.tell(made=1)
        async with asyncio.timeout(30):
            while not self._open.is_set():  # noqa: ASYNC110  (one gate for threads and tasks)
                await asyncio.sleep(0.001)
        return ChatResult(generations=[ChatGeneration(message=reply())])

    def ask(self, config):
        try:
            self.invoke("?", config)
        except BudgetExceededError:
            self.tell(made=0)

    async def aask(self, config):
        try:
            await self.ainvoke("?", config)
        except BudgetExceededError:
            self.tell(made=0)


METERS = pytest.mark.parametrize(
    "make", [UsageMeter, SharedBudget, lambda budget: UsageMeter(shared=SharedBudget(budget))]
)


@METERS
@MODES
async def test_fifty_calls_at_once_do_not_exceed_the_limit(mode, make):
    meter = make(Budget(model_calls=7))
    model = Gate(callers=50)
    if mode == "async":
        await asyncio.gather(*(model.aask({"callbacks": [meter]}) for _ in range(50)))
    else:
        with ThreadPoolExecutor(50) as pool:
            list(pool.map(model.ask, [{"callbacks": [meter]}] * 50))
    assert model.made == meter.spent.model_calls == meter.spent.output_tokens == 7


@MODES
async def test_a_jury_that_asks_all_at_once_keeps_within_the_budget(mode):
    asked = []

    def judge(messages):
        return slow.invoke(messages)

    class Slow(ScriptedChatModel):
        def _generate(self, *_, **__):
            asked.append(1)
            threading.Event().wait(0.1)
            return ChatResult(generations=[ChatGeneration(message=reply("Verdict: unbiased"))])

    slow = Slow([])
    jury = Jury(*(LLMCritic(RunnableLambda(judge)) for _ in range(6)))
    out = await call(create_cac_graph(ScriptedChatModel(["a"]), checker=jury, budget=Budget(model_calls=4)), mode, ASK)

    assert (out["cac"].status, out["messages"][-1].text) == ("budget", "a")
    assert len(asked) <= 3
    assert out["cac"].usage.model_calls == 1 + len(asked)


@given(
    st.lists(st.tuples(st.sampled_from(["begin", "end", "fail"]), st.integers(0, 9)), max_size=40),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_whatever_the_interleaving_no_call_too_many_is_made(steps, first_limit, second_limit):
    meters = [UsageMeter(Budget(model_calls=first_limit)), SharedBudget(Budget(model_calls=second_limit))]
    under_way, made = [], 0
    for step, which in steps:
        if step == "begin":
            call_id = uuid4()
            try:
                for meter in (*meters, meters[0]):  # as LangChain does: one after the other, some twice
                    meter.on_chat_model_start({}, [], run_id=call_id, metadata={})
            except BudgetExceededError:
                continue
            under_way.append(call_id)
            made += 1
        elif under_way:
            call_id = under_way.pop(which % len(under_way))
            for meter in (*meters, meters[0]):
                if step == "end":
                    meter.on_llm_end(LLMResult(generations=[[ChatGeneration(message=reply())]]), run_id=call_id)
                else:
                    meter.on_llm_error(ConnectionError(), run_id=call_id)
        assert made <= min(first_limit, second_limit)
        assert [meter.usage.model_calls for meter in meters] == [made, made]
    wanted = sum(step == "begin" for step, _ in steps)
    assert made == min(wanted, first_limit, second_limit), "and none too few"


# One account for several runs


@REFUSED_EARLY
@MODES
async def test_plain_calls_and_graphs_draw_on_one_account(mode):
    shared = SharedBudget(Budget(model_calls=3))
    plain = ScriptedChatModel(["one", "two"])
    await call(plain, mode, "?", callbacks=[shared])
    graph = create_cac_graph(ScriptedChatModel(["a", "b", "c"]), checker=lambda _: False)
    out = await call(graph, mode, ASK, callbacks=[shared])

    assert (out["cac"].status, out["messages"][-1].text) == ("budget", "b")
    assert (shared.spent.model_calls, shared.remaining) == (3, {"model_calls": 0})
    with pytest.raises(BudgetExceededError):
        await call(plain, mode, "?", callbacks=[shared])
    assert len(plain.asked) == 1


@REFUSED_EARLY
@MODES
async def test_a_graph_inside_a_graph_is_counted_once(mode):
    shared = SharedBudget(Budget(model_calls=4))
    model = ScriptedChatModel(["a", "b", "c", "d", "e"])
    inner = create_cac_graph(model, checker=lambda request: len(request.rounds) == 1)  # passes the second answer
    outer = create_cac_graph(inner, checker=lambda _: False, budget=Budget(model_calls=10))
    out = await call(outer, mode, ASK, callbacks=[shared])

    assert out["messages"][-1].text == "d"
    assert "the budget of 4 model calls is used up" in out["cac"].error
    assert shared.spent.model_calls == out["cac"].usage.model_calls == len(model.asked) == 4


@MODES
async def test_a_call_heard_of_twice_counts_once(mode):
    shared = SharedBudget(Budget(model_calls=9))
    meter = UsageMeter(shared=shared)
    model = ScriptedChatModel([reply()])
    await call(model.with_config(callbacks=[shared, meter]), mode, "?", callbacks=[shared, meter])
    assert shared.spent.model_copy(update={"seconds": 0}) == Usage(model_calls=1, input_tokens=1, output_tokens=1)
    assert meter.usage.model_calls == 1


@MODES
async def test_a_call_that_one_account_refuses_is_not_taken_from_another(mode):
    large, small = SharedBudget(Budget(model_calls=3)), SharedBudget(Budget(model_calls=1))
    model = ScriptedChatModel(["a", "b", "c"])
    for _ in range(5):
        with suppress(BudgetExceededError):
            await call(model, mode, "?", callbacks=[large, small])
    assert (len(model.asked), large.spent.model_calls, large.remaining) == (1, 1, {"model_calls": 2})


def test_a_meter_asks_its_shared_account_too():
    shared = SharedBudget(Budget(model_calls=1))
    meter = UsageMeter(Budget(model_calls=5), shared=shared)
    meter.check_budget()
    ScriptedChatModel(["a"]).invoke("?", {"callbacks": [shared]})
    with pytest.raises(BudgetExceededError, match="the budget of 1 model calls is used up"):
        meter.check_budget()
    assert meter.usage.model_calls == 0


def test_threads_share_money():
    shared = SharedBudget(priced(1e9))
    model = ScriptedChatModel([reply()] * 40, model_name="m")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: model.invoke("?", {"callbacks": [shared]}), range(40)))
    assert shared.spent.cost == pytest.approx(40 * 0.011)


def test_the_time_of_an_account_runs_from_its_first_use(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("correction_graphs.usage.time", SimpleNamespace(perf_counter=lambda: now[0]))
    shared = SharedBudget(Budget(seconds=5))
    now[0] += 1000
    assert (shared.spent.seconds, shared.remaining) == (0.0, {"seconds": 5})
    shared.check_budget()
    now[0] += 4
    shared.check_budget()
    assert shared.remaining == {"seconds": 1}
    now[0] += 1
    with pytest.raises(BudgetExceededError, match="5 seconds"):
        shared.check_budget()


def test_a_shared_budget_is_found_in_a_context():
    shared = SharedBudget(Budget(model_calls=1))
    assert shared_budget({"budget": shared}) is shared_budget(SimpleNamespace(budget=shared)) is shared
    for other in (None, {}, {"budget": 12}, SimpleNamespace(), "text"):
        assert shared_budget(other) is None
    with pytest.raises(SettingsError, match=r"make one SharedBudget\(Budget\(\.\.\.\)\)"):
        shared_budget({"budget": Budget(model_calls=1)})
    with pytest.raises(SettingsError, match="`budget` is 5; give a Budget"):
        SharedBudget(5)


def test_a_refusal_is_found_under_the_error_of_a_nested_graph():
    graph = create_cac_graph(ScriptedChatModel([], model_name="other"), checker=lambda _: True)
    with pytest.raises(GenerationError) as caught:
        graph.invoke(ASK, {"callbacks": [SharedBudget(priced(1))]})
    assert "no price for the model 'other'" in str(refusal_in(caught.value))
    assert refusal_in(ValueError("x")) is None
    group = ExceptionGroup("both", [ValueError("x"), caught.value])
    assert refusal_in(group) is refusal_in(caught.value)
    assert refusal_in(ExceptionGroup("one", [ValueError("x")])) is None


@MODES
async def test_an_agent_draws_on_the_account(mode):
    model = ScriptedChatModel(["one", "two", "three"])

    def ask(state):
        return {"messages": [model.invoke(state["messages"])]}

    agent = StateGraph(MessagesState)
    agent.add_sequence([("first", ask), ("again", ask)])
    agent.add_edge(START, "first")
    shared = SharedBudget(Budget(model_calls=1))
    with pytest.raises(BudgetExceededError):
        await call(agent.compile(), mode, ASK, callbacks=[shared])
    assert len(model.asked) == 1
