"""What each strategy puts before the model, and how its context grows."""

from __future__ import annotations

import re

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from correction_graphs import CacResult, ChatLlama, Round, Verdict, create_cac_graph, load_template
from correction_graphs.checkers.adapters import as_checker
from correction_graphs.demonstrations import Demonstration, DemonstrationBank, corrected
from correction_graphs.errors import SettingsError, StrategyError, TemplateError
from correction_graphs.messages import fence
from correction_graphs.models import AnswerModel
from correction_graphs.strategies import RevisionRequest, start_afresh
from correction_graphs.strategy_adapters import as_strategy
from correction_graphs.testing import ScriptedChatModel

QUESTION = "What is the capital of Australia?"
ASK = {"messages": [("user", QUESTION)]}
SUMS = [
    Demonstration(question="2 + 2?", answer="5.", critique="Two and two are four.", corrected="4."),
    Demonstration(question="3 + 3?", answer="7.", critique="Three and three are six.", corrected="6."),
]


def no(request):
    return Verdict(passed=False, critique=f"Not {request.answer}")


def shown(model):
    return [[message.text for message in asked] for asked in model.asked]


# What a strategy may be


def plain(request):
    return [HumanMessage(f"Not {request.rounds[-1].answer}. Again.")]


async def asynchronous(request):
    return plain(request)


class WithAnAsyncCall:
    """An object that is called like an async function, without being one."""

    async def __call__(self, request):
        return plain(request)


async def run(graph, mode):
    return graph.invoke(ASK) if mode == "sync" else await graph.ainvoke(ASK)


PROMPT = RunnableLambda(lambda request: {"answer": request.rounds[-1].answer}) | ChatPromptTemplate.from_messages(
    [("human", "Not {answer}. Again.")]
)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(
    ("strategy", "name"),
    [
        (plain, "plain"),
        (asynchronous, "asynchronous"),
        (WithAnAsyncCall(), "WithAnAsyncCall"),
        (RunnableLambda(plain, name="lambda"), "lambda"),
        (RunnableLambda(plain, afunc=asynchronous, name="both"), "both"),
        (PROMPT, "RunnableSequence"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_functions_and_runnables_are_strategies(strategy, name, mode):
    model = ScriptedChatModel(["a", "b"])
    out = await run(create_cac_graph(model, checker=lambda r: r.answer == "b", strategy=strategy), mode)

    assert shown(model)[1] == ["Not a. Again."]
    assert out["cac"].strategy == name


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_model_called_with_await_inside_a_strategy_is_counted(mode):
    writer = ScriptedChatModel(["Summary."])

    async def summarizes(_):
        return [await writer.ainvoke("Summarize."), HumanMessage("Again.")]

    graph = create_cac_graph(ScriptedChatModel(["a", "b"]), checker=lambda r: r.answer == "b", strategy=summarizes)
    assert (await run(graph, mode))["cac"].usage.model_calls == 3


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_an_async_strategy_that_returns_no_messages_is_an_error_that_carries_the_answer(mode):
    async def forgetful(_):
        return None

    graph = create_cac_graph(ScriptedChatModel(["a"]), checker=no, strategy=forgetful)
    with pytest.raises(StrategyError, match="returned None; a strategy returns a list of messages") as caught:
        await run(graph, mode)
    assert caught.value.result.rounds[0].answer == "a"


@pytest.mark.parametrize(
    ("strategy", "problem"),
    [
        ("magic", "is 'magic'; it is one of 'self', 'self_instruct', 'fresh', 'ranked', or a function"),
        (["self"], r"is \['self'\]; it is one of"),
        (None, "is None; it is one of"),
        (DemonstrationBank, "is <class .*; it is one of"),
        (lambda: [HumanMessage("x")], "called with a RevisionRequest alone"),
        (ScriptedChatModel([]), "is the model 'ScriptedChatModel', which does not take a RevisionRequest"),
    ],
)
def test_what_is_no_strategy_is_refused(strategy, problem):
    with pytest.raises(SettingsError, match=problem):
        as_strategy(strategy, model=AnswerModel(ScriptedChatModel([])), checker=as_checker(no))


# fresh


def test_fresh_shows_the_question_and_the_newest_critique_and_no_rejected_answer():
    model = ScriptedChatModel(["AAA", "BBB", "CCC"])
    create_cac_graph(model, checker=no, strategy="fresh").invoke(ASK)

    (first,), (second,), (third,) = shown(model)
    assert first == QUESTION
    assert QUESTION in second
    assert fence("Not AAA", "critique") in second
    assert "Not BBB" in third
    assert "AAA" not in third


def test_fresh_does_not_grow():
    model = ScriptedChatModel([str(i) for i in range(6)])
    create_cac_graph(model, checker=no, strategy="fresh", max_rounds=5).invoke(ASK)

    later = [sum(map(len, context)) for context in shown(model)[1:]]
    assert max(later) == min(later)


def test_fresh_keeps_the_rest_of_the_conversation_and_what_was_attached():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    request = RevisionRequest(
        messages=(
            SystemMessage("Be brief."),
            HumanMessage("Hi"),
            AIMessage("Hello."),
            HumanMessage([{"type": "text", "text": "What is this?"}, image]),
        ),
        rounds=(Round(answer="A cat.", verdict=Verdict(passed=False, critique="It barks.")),),
        template=load_template("correctness"),
    )
    *before, asked = start_afresh(request)

    assert before == list(request.messages[:3])
    assert asked.content[0] == image
    assert "What is this?" in asked.text
    assert "It barks." in asked.text


def test_fresh_works_without_a_question():
    request = RevisionRequest(
        messages=(SystemMessage("Say something."),), rounds=(Round(answer="x"),), template=load_template("bias")
    )
    assert [message.type for message in start_afresh(request)] == ["system", "human"]


# demonstrations


def test_demonstrations_stand_in_front_from_the_first_answer_on():
    model = ScriptedChatModel(["Sydney.", "Canberra."])
    graph = create_cac_graph(model, checker=lambda r: r.answer == "Canberra.", strategy=DemonstrationBank(SUMS))
    out = graph.invoke({"messages": [SystemMessage("Be brief."), HumanMessage(QUESTION)]})

    first, second = model.asked
    assert [message.type for message in first] == ["system", *["human", "ai"] * 4, "human"]
    assert [message.text for message in first[:3]] == ["Be brief.", "2 + 2?", "5."]
    assert "Two and two are four." in first[3].text
    assert first[4].text == "4."
    assert first[-1].text == QUESTION
    assert second[: len(first)] == first, "so a prompt cache reads the examples once"
    assert len(out["messages"]) == 3
    assert out["cac"].strategy == "demonstrations (2)"


def test_a_bank_is_made_of_earlier_results():
    def result(question, *answers):
        graph = create_cac_graph(
            ScriptedChatModel(answers), checker=lambda r: Verdict(passed=r.answer == "good", critique="Bad.")
        )
        return question, graph.invoke({"messages": [("user", question)]})["cac"]

    results = [
        result("passed at once", "good"),
        result("corrected", "bad", "good"),
        result("never passed", "bad", "worse", "worst"),
        result("corrected late", "bad", "worse", "good"),
    ]
    bank = DemonstrationBank.from_results(results)

    assert [example.question for example in bank.demonstrations] == ["corrected", "corrected late"]
    assert bank.demonstrations[0] == Demonstration(
        question="corrected", answer="bad", critique="Bad.", corrected="good"
    )
    assert len(DemonstrationBank.from_results(results, most=1).demonstrations) == 1
    with pytest.raises(SettingsError, match="nothing to demonstrate"):
        DemonstrationBank.from_results(results[:1])
    assert corrected("?", CacResult(status="failed")) is None
    assert corrected(" ", results[1][1]) is None, "nothing to ask"
    speechless = create_cac_graph(ScriptedChatModel(["bad", "good"]), checker=lambda r: r.answer == "good")
    assert corrected("?", speechless.invoke({"messages": [("user", "?")]})["cac"]) is None, "nothing to learn from"


def test_a_bank_is_saved_and_loaded(tmp_path):
    bank = DemonstrationBank([*SUMS, Demonstration(question="问?", answer="a\nb", critique='"', corrected="c")])
    bank.save(tmp_path / "bank.jsonl")
    assert DemonstrationBank.load(tmp_path / "bank.jsonl").demonstrations == bank.demonstrations


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2: not a demonstration"),
        ('{"question": "x"}', "line 2.*answer"),
        ('{"questoin": "x"}', "line 2.*questoin"),
    ],
)
def test_a_broken_line_is_named_by_number(tmp_path, line, problem):
    path = tmp_path / "bank.jsonl"
    path.write_text(f"{SUMS[0].model_dump_json()}\n{line}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=problem):
        DemonstrationBank.load(path)


def test_missing_files_and_empty_banks_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="cannot read demonstrations"):
        DemonstrationBank.load(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="at least one"):
        DemonstrationBank.load(tmp_path / "empty.jsonl")


def test_a_bank_needs_a_template_with_its_role():
    bias = load_template("bias")
    template = bias.model_copy(update={"prompts": {"check.verdict": bias.prompts["check.verdict"]}})
    with pytest.raises(TemplateError, match=re.escape("revise.self")):
        create_cac_graph(ScriptedChatModel([]), checker=no, template=template, strategy=DemonstrationBank(SUMS))


@pytest.mark.gguf
def test_a_local_model_reads_the_demonstrations_once(smollm2_path):
    chat = ChatLlama.from_gguf(smollm2_path, max_tokens=4, n_threads=1, n_ctx=2048)
    graph = create_cac_graph(chat, checker=lambda _: True, strategy=DemonstrationBank(SUMS))
    graph.invoke(ASK)
    usage = graph.invoke({"messages": [("user", "What is the capital of Chile?")]})["cac"].usage

    assert usage.cached_tokens / usage.input_tokens > 0.9
    chat.backend.close()
