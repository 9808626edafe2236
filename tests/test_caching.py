"""The cache: what was asked before is not asked again, whatever its message ids; what failed is."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, ToolMessage
from langchain_core.runnables import ConfigurableField, RunnableSerializable
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime

from correction_graphs import Budget, Jury, LLMCritic, build_cac_graph, create_cac_graph
from correction_graphs.checkers.sequence import Sequential
from correction_graphs.errors import SettingsError
from correction_graphs.models import identity_of
from correction_graphs.testing import ScriptedChatModel
from correction_graphs.usage import SharedBudget

QUESTION = "What is the capital of Australia?"
FAILS = "He assumes.\nCritique: Sydney is not it.\nVerdict: incorrect"
PASSES = "Well.\nCritique: none\nVerdict: correct"
WAYS = pytest.mark.parametrize("mode", ["invoke", "ainvoke"])


def asked(text=QUESTION, **fields):
    return {"messages": [HumanMessage(text, **fields)]}


async def run(graph, mode, inputs, *config):
    return graph.invoke(inputs, *config) if mode == "invoke" else await graph.ainvoke(inputs, *config)


@WAYS
async def test_the_same_question_with_other_ids_asks_no_model_again(mode):
    model = ScriptedChatModel(["Sydney.", FAILS, "Canberra.", PASSES])
    graph = create_cac_graph(model, template="correctness", cache=InMemoryCache())

    first = await run(graph, mode, asked(id="1"))
    second = await run(graph, mode, asked(id="2"))

    assert len(model.asked) == 4
    assert second["messages"][-1].text == first["messages"][-1].text == "Canberra."
    assert [done.verdict for done in second["cac"].rounds] == [done.verdict for done in first["cac"].rounds]
    assert first["cac"].usage.model_calls == 4
    assert second["cac"].usage.model_calls == 0  # what this run cost
    assert second["messages"][-1].id != first["messages"][-1].id


@WAYS
@pytest.mark.parametrize(
    "other",
    [
        asked("What is the capital of Austria?"),
        {"messages": [("system", "Be brief."), ("user", QUESTION)]},
        asked(name="Ann"),
        {"messages": [HumanMessage([{"type": "text", "text": QUESTION}])]},
    ],
)
async def test_another_conversation_is_another_question(mode, other):
    model = ScriptedChatModel(["a", "b"])
    graph = create_cac_graph(model, checker=lambda _: True, cache=InMemoryCache())
    await run(graph, mode, asked())
    assert (await run(graph, mode, other))["messages"][-1].text == "b"


def test_an_answer_from_the_cache_sends_the_same_events_and_tokens():
    graph = create_cac_graph(
        ScriptedChatModel(["Sydney.", FAILS, "It is Canberra.", PASSES]), template="correctness", cache=InMemoryCache()
    )

    def streamed():
        parts = list(graph.stream(asked(), stream_mode=["custom", "messages"]))
        events = [(part["type"], part["round"]) for kind, part in parts if kind == "custom"]
        return events, [part[0].text for kind, part in parts if kind == "messages"]

    first = streamed()
    assert streamed() == first
    assert first[1] == ["It", " is", " Canberra."]


def test_a_failure_is_not_kept():
    model = ScriptedChatModel([ConnectionError("down"), "Canberra."])
    graph = create_cac_graph(model, checker=lambda _: True, cache=InMemoryCache())
    with pytest.raises(Exception, match="down"):
        graph.invoke(asked())
    assert graph.invoke(asked())["messages"][-1].text == "Canberra."


@WAYS
async def test_an_unreadable_verdict_is_not_kept(mode):
    model = ScriptedChatModel(["Canberra.", "Hm.", PASSES])
    graph = create_cac_graph(model, template="correctness", on_unknown="accept", cache=InMemoryCache())
    assert (await run(graph, mode, asked()))["cac"].status == "unverified"
    assert (await run(graph, mode, asked()))["cac"].status == "passed"


@WAYS
async def test_an_empty_answer_is_not_kept(mode):
    model = ScriptedChatModel(["", "Canberra."])
    graph = create_cac_graph(model, checker=lambda _: True, max_rounds=0, cache=InMemoryCache())
    with pytest.raises(Exception, match="empty"):
        await run(graph, mode, asked())
    assert (await run(graph, mode, asked()))["messages"][-1].text == "Canberra."


def test_a_checker_that_may_change_its_mind_is_asked_each_time():
    verdicts = iter([False, True])
    graph = create_cac_graph(
        ScriptedChatModel(["Canberra."]), checker=lambda _: next(verdicts), max_rounds=0, cache=InMemoryCache()
    )
    assert [graph.invoke(asked())["cac"].status for _ in range(2)] == ["exhausted", "passed"]


@pytest.mark.parametrize("made_of", [Jury, Sequential])
def test_checkers_made_of_critics_are_kept_and_others_are_not(made_of):
    def calls(*more):
        judge = ScriptedChatModel([PASSES, PASSES])
        checker = made_of(LLMCritic(judge, template="correctness"), *more)
        graph = create_cac_graph(ScriptedChatModel(["Canberra."]), checker=checker, cache=InMemoryCache())
        assert [graph.invoke(asked())["cac"].status for _ in range(2)] == ["passed", "passed"]
        return len(judge.asked)

    assert calls() == 1
    assert calls(lambda _: True) == 2


def test_two_graphs_share_a_cache_without_mixing_their_models_up():
    cache = InMemoryCache()
    said = [
        create_cac_graph(ScriptedChatModel([text]), checker=lambda _: True, cache=cache).invoke(asked())
        for text in ("one", "two")
    ]
    assert [out["messages"][-1].text for out in said] == ["one", "two"]


def test_two_critics_with_other_templates_do_not_share_verdicts():
    cache = InMemoryCache()
    model = ScriptedChatModel(["Canberra.", PASSES, "Verdict: biased\nCritique: so", "Canberra!", "Verdict: neutral"])
    correct = create_cac_graph(model, template="correctness", cache=cache).invoke(asked())
    biased = create_cac_graph(model, template="bias", max_rounds=0, cache=cache).invoke(asked())
    assert correct["cac"].status == "passed"
    assert len(biased["cac"].rounds) == 1


def test_equal_settings_of_a_published_model_are_one_identity():
    openai = pytest.importorskip("langchain_openai")

    def model(**settings):
        return openai.ChatOpenAI(model="gpt-x", api_key="sk-secret", **settings)

    assert identity_of(model()) == identity_of(model())
    assert identity_of(model()) != identity_of(model(temperature=0.5))
    assert "sk-secret" not in identity_of(model())


class OwnModel(FakeListChatModel):
    """A chat model of a user's own, with what LangChain's caches tell it apart by; LangChain cannot write it out."""

    size: str | None = None

    @property
    def _identifying_params(self):
        return {"size": self.size} if self.size else {}


class Unwritable(RunnableSerializable):
    """A runnable that cannot be written out at all."""

    text: str

    def to_json(self):
        raise RuntimeError("not now")

    def invoke(self, input, config=None, **_):  # noqa: A002
        return AIMessage(self.text)


def test_models_that_cannot_be_told_apart_do_not_share_answers():
    cache = InMemoryCache()
    graphs = [create_cac_graph(Unwritable(text=text), checker=lambda _: True, cache=cache) for text in "ab"]
    assert [graph.invoke(asked())["messages"][-1].text for graph in graphs] == ["a", "b"]


def test_a_chat_model_of_ones_own_is_known_by_the_parameters_that_it_names():
    large, small = OwnModel(responses=["a"], size="large"), OwnModel(responses=["b"], size="small")
    cache = InMemoryCache()

    def says(model):
        graph = create_cac_graph(model, checker=lambda _: True, cache=cache)
        return graph.invoke(asked())["messages"][-1].text

    assert [says(model) for model in (large, small, OwnModel(responses=["c"], size="large"))] == ["a", "b", "a"]
    assert [says(OwnModel(responses=[text])) for text in "de"] == ["d", "e"], "without parameters it is like no other"


def test_the_same_answer_in_two_threads_is_two_messages():
    graph = build_cac_graph(ScriptedChatModel(["Yes."]), checker=lambda _: True, cache=InMemoryCache()).compile(
        checkpointer=InMemorySaver()
    )
    a, b = (graph.invoke(asked(), {"configurable": {"thread_id": name}})["messages"][-1] for name in "ab")
    assert (a.text, b.text) == ("Yes.", "Yes.")
    assert a.id != b.id


def image(**source):
    return {"messages": [HumanMessage([{"type": "text", "text": "What is this?"}, {"type": "image", **source}])]}


def called(**call):
    asking = AIMessage("", tool_calls=[{"name": "search", "args": {"q": "x"}, "id": "1"} | call])
    return {"messages": [HumanMessage("Hm?"), asking, ToolMessage("0", tool_call_id="1"), HumanMessage("So?")]}


def results(**result):
    messages = called()["messages"]
    messages[2] = ToolMessage("0", tool_call_id="1", **result)
    return {"messages": messages}


INVALID = {"type": "invalid_tool_call", "name": "f", "args": "{", "id": "1", "error": None}


def said(**fields):
    return {"messages": [HumanMessage("Hm?"), AIMessage("", **fields), HumanMessage("So?")]}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (image(data=b"cat"), image(data=b"dog")),
        (image(data=b"cat"), image(data="b'cat'")),
        (image(data=np.zeros(5000)), image(data=np.eye(1, 5000, 2500))),
        (image(extras={1: "a", "b": 2}), image(extras={1: "a", "b": 3})),
        (called(args={"q": "x"}), called(args={"q": "y"})),
        (results(status="success"), results(status="error")),
        ({"messages": [ChatMessage("Go.", role="a")]}, {"messages": [ChatMessage("Go.", role="b")]}),
        (said(additional_kwargs={"function_call": {"name": "f"}}), said(additional_kwargs={})),
        (said(invalid_tool_calls=[INVALID]), said(invalid_tool_calls=[INVALID | {"args": "["}])),
    ],
    ids=["bytes", "text of bytes", "arrays", "keys", "calls", "failed tool", "role", "function call", "invalid call"],
)
@WAYS
async def test_what_models_are_shown_is_told_apart_whatever_it_is(mode, one, other):
    graph = create_cac_graph(ScriptedChatModel(["a", "b", "c"]), checker=lambda _: True, cache=InMemoryCache())
    first, second = [(await run(graph, mode, asked))["messages"][-1].text for asked in (one, other)]
    assert (first, second) == ("a", "b")


def test_bytes_are_asked_once():
    graph = create_cac_graph(ScriptedChatModel(["a", "b"]), checker=lambda _: True, cache=InMemoryCache())
    said = [graph.invoke(image(data=b"cat"))["messages"][-1].text for _ in range(2)]
    assert said == ["a", "a"]


@dataclass
class User:
    name: str
    budget: SharedBudget = field(default_factory=lambda: SharedBudget(Budget(model_calls=9)))


def greeter():
    def greet(_, runtime: Runtime[User]):
        greeted.append(runtime.context.name)
        return {"messages": [AIMessage(f"Hello {runtime.context.name}!")]}

    greeted = []
    graph = StateGraph(MessagesState, context_schema=User)
    graph.add_node("greet", greet)
    graph.add_edge(START, "greet")
    graph.add_edge("greet", END)
    return graph.compile(), greeted


@WAYS
async def test_an_agent_that_reads_the_context_says_nothing_to_one_user_that_was_meant_for_another(mode):
    agent, greeted = greeter()
    graph = create_cac_graph(agent, checker=lambda _: True, context_schema=User, cache=InMemoryCache())
    said = []
    for name in ("Ann", "Bob", "Ann"):
        if mode == "invoke":
            out = graph.invoke(asked(), context=User(name))
        else:
            out = await graph.ainvoke(asked(), context=User(name))
        said.append(out["messages"][-1].text)
    assert said == ["Hello Ann!", "Hello Bob!", "Hello Ann!"]
    assert greeted == ["Ann", "Bob"]


def test_a_model_with_configurable_fields_is_told_apart_by_what_they_are():
    model = FakeListChatModel(responses=["a"]).configurable_fields(responses=ConfigurableField(id="responses"))
    graph = create_cac_graph(model, checker=lambda _: True, cache=InMemoryCache(), checkpointer=InMemorySaver())
    said = [
        graph.invoke(asked(), {"configurable": {"thread_id": str(thread), "responses": [text]}})["messages"][-1].text
        for thread, text in enumerate("bc")
    ]
    assert said == ["b", "c"]


@pytest.mark.parametrize(
    "wrapped",
    [lambda model: model, lambda model: model.bind(temperature=0), lambda model: model.with_config(tags=["x"])],
    ids=["bare", "bound", "configured"],
)
def test_a_chat_model_answers_all_users_alike(wrapped):
    model = ScriptedChatModel(["Sydney.", FAILS, "Canberra.", PASSES])
    graph = create_cac_graph(wrapped(model), template="correctness", context_schema=User, cache=InMemoryCache())
    for name in ("Ann", "Bob"):
        graph.invoke(asked(), {"configurable": {"user": name}}, context=User(name))
    assert len(model.asked) == 4


class Broken(InMemoryCache):
    """Fails to do what it is told to fail at."""

    def __init__(self, fails):
        super().__init__()
        self.fails = fails

    def get(self, keys):
        if self.fails == "get":
            raise ConnectionError("cache down")
        return dict.fromkeys(keys, "nonsense") if self.fails == "keep" else super().get(keys)

    async def aget(self, keys):
        return self.get(keys)

    def set(self, pairs):
        if self.fails == "set":
            raise ConnectionError("cache down")
        super().set(pairs)

    async def aset(self, pairs):
        self.set(pairs)


@WAYS
@pytest.mark.parametrize("fails", ["get", "set", "keep"])
async def test_a_cache_that_fails_loses_no_answer(mode, fails, caplog):
    model = ScriptedChatModel(["Canberra.", PASSES])
    graph = create_cac_graph(model, template="correctness", cache=Broken(fails))
    out = await run(graph, mode, asked())
    assert (out["cac"].status, out["messages"][-1].text) == ("passed", "Canberra.")
    assert "the cache could not be" in caplog.text


@pytest.mark.parametrize("wrong", [True, "memory", {}])
def test_what_is_no_cache_is_refused(wrong):
    with pytest.raises(SettingsError, match=r"`cache` is .*; give a LangGraph cache, such as InMemoryCache"):
        create_cac_graph(ScriptedChatModel([]), cache=wrong)
