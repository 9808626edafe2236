"""The loop around the answers of an agent: what the agent's user sees, and what they never do."""

from __future__ import annotations

import subprocess
import sys

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    ModelRetryMiddleware,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from correction_graphs import Budget, HumanChecker, Verdict
from correction_graphs.errors import CheckerError, GenerationError, SettingsError, TemplateError
from correction_graphs.middleware.cac import CaCMiddleware
from correction_graphs.testing import ScriptedChatModel
from correction_graphs.usage import SharedBudget

QUESTION = "What is the capital of Australia?"
ASK = {"messages": [("user", QUESTION)]}
MODES = pytest.mark.parametrize("mode", ["sync", "async"])


class Scripted(ScriptedChatModel):
    """A scripted model that takes tools, and does not mind them."""

    def bind_tools(self, tools, **_):
        return self


@tool
def look_up(place: str) -> str:
    """Look a place up."""
    return f"{place}: found"


def calling(number: int, tool: str = "look_up", /, **args) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": tool, "args": args or {"place": str(number)}, "id": f"call{number}"}])


def is_canberra(request):
    return Verdict(passed="Canberra" in request.answer, critique=f"Not {request.answer}")


def by_length(request):
    return Verdict(passed=False, critique="Too short.", score=len(request.answer))


def agent_with(model, *middleware, tools=(look_up,), **settings):
    return create_agent(model, list(tools), middleware=list(middleware), **settings)


async def run(agent, mode, inputs=ASK, config=None, **more):
    return agent.invoke(inputs, config, **more) if mode == "sync" else await agent.ainvoke(inputs, config, **more)


async def streamed(agent, mode, inputs=ASK, config=None):
    if mode == "sync":
        return [part[0] for part in agent.stream(inputs, config, stream_mode="messages")]
    return [part[0] async for part in agent.astream(inputs, config, stream_mode="messages")]


def told(messages):
    """Messages as far as they do not depend on chance."""
    return [(m.type, m.content, [c["args"] for c in getattr(m, "tool_calls", ())]) for m in messages]


# The history


@MODES
async def test_a_rejected_answer_is_written_again_and_leaves_no_trace(mode):
    model = Scripted(["Sydney.", "Canberra."])
    out = await run(agent_with(model, CaCMiddleware(is_canberra)), mode)

    assert [message.text for message in out["messages"]] == [QUESTION, "Canberra."]
    assert out["cac"].status == "passed"
    assert [done.answer for done in out["cac"].rounds] == ["Sydney.", "Canberra."]
    assert out["cac"].usage.model_calls == 2
    assert "Not Sydney." in model.asked[1][-1].text
    assert set(out) == {"messages", "cac"}


@MODES
@pytest.mark.parametrize("before", [0, 5])
@pytest.mark.parametrize("after", [0, 5])
async def test_the_history_is_that_of_an_agent_without_it_but_for_the_answer(mode, before, after):
    tools_first = [calling(number) for number in range(before)]
    tools_later = [calling(number) for number in range(5, 5 + after)]
    with_it = agent_with(Scripted([*tools_first, "Sydney.", *tools_later, "Canberra."]), CaCMiddleware(is_canberra))
    without = agent_with(Scripted([*tools_first, *tools_later, "Canberra."]))

    out, bare = await run(with_it, mode), await run(without, mode)
    assert told(out["messages"]) == told(bare["messages"])
    assert len(out["messages"]) == 2 + 2 * (before + after)
    assert out["cac"].usage.model_calls == before + after + 2
    assert [done.answer for done in out["cac"].rounds] == ["Sydney.", "Canberra."]


def test_after_a_failed_check_the_model_sees_critique_and_then_what_its_tools_said():
    model = Scripted([calling(1), "Sydney.", calling(2), calling(3), "Canberra."])
    agent_with(model, CaCMiddleware(is_canberra), system_prompt="Be brief.").invoke(ASK)

    shown = model.asked[-1]
    assert [message.type for message in shown] == ["system", "human", "ai", "tool", "ai", "human", *["ai", "tool"] * 2]
    assert shown[4].text == "Sydney."
    assert "Not Sydney." in shown[5].text
    assert [message.text for message in shown if isinstance(message, ToolMessage)] == [f"{n}: found" for n in (1, 2, 3)]


def test_the_checker_sees_the_system_prompt_and_the_whole_history():
    seen = []
    agent_with(
        Scripted([calling(1), "Canberra."]),
        CaCMiddleware(lambda request: seen.append(request) or True),
        system_prompt="Be brief.",
    ).invoke(ASK)
    assert [type(message) for message in seen[0].messages] == [SystemMessage, HumanMessage, AIMessage, ToolMessage]


def test_an_agent_ends_with_the_best_answer_when_none_passes():
    model = Scripted(["Perth.", calling(1), "Sydney, no doubt.", calling(2), "Hobart.", "never asked for"])
    out = agent_with(model, CaCMiddleware(by_length, max_rounds=2)).invoke(ASK)

    assert len(model.asked) == 5
    assert out["messages"][-1].text == "Sydney, no doubt."
    assert (out["cac"].status, out["cac"].chosen, len(out["cac"].rounds)) == ("exhausted", 1, 3)
    assert [message.type for message in out["messages"]] == ["human", "ai", "tool", "ai", "tool", "ai"]


def test_no_turn_is_longer_than_its_cap():
    model = Scripted([f"Answer {number}." for number in range(20)])
    out = agent_with(model, CaCMiddleware(lambda _: False, max_rounds=7), tools=()).invoke(ASK)
    assert len(model.asked) == 8
    assert out["cac"].status == "exhausted"


def test_a_repeated_answer_ends_the_run():
    out = agent_with(Scripted(["Sydney.", "Sydney."]), CaCMiddleware(is_canberra, max_rounds=9)).invoke(ASK)
    assert out["cac"].status == "plateau"


def test_a_refusal_takes_the_place_of_an_answer_and_carries_the_agents_name():
    agent = agent_with(
        Scripted(["Sydney.", "Perth."]),
        CaCMiddleware(is_canberra, max_rounds=1, on_exhausted=lambda result: f"No answer of {len(result.rounds)}."),
        name="guide",
    )
    message = agent.invoke(ASK)["messages"][-1]
    assert (message.text, message.name) == ("No answer of 2.", "guide")


# The stream


@MODES
@pytest.mark.parametrize("thread", [None, {"configurable": {"thread_id": "1"}}])
async def test_no_token_of_a_draft_reaches_the_stream(mode, thread):
    model = Scripted(["It is Sydney.", calling(1), "It is Perth.", "It is Canberra."])
    agent = agent_with(model, CaCMiddleware(is_canberra), checkpointer=thread and InMemorySaver())
    messages = await streamed(agent, mode, config=thread)

    pieces = [message for message in messages if isinstance(message, AIMessageChunk)]
    assert [piece.content for piece in pieces] == ["It", " is", " Canberra."]
    assert len({piece.id for piece in pieces}) == 1
    others = [message for message in messages if not isinstance(message, AIMessageChunk)]
    assert [message.type for message in others if message.type != "human"] == ["ai", "tool"]
    assert not any("Sydney" in message.text or "Perth" in message.text for message in messages)


@MODES
async def test_what_a_critic_says_does_not_reach_the_stream_either(mode):
    model = Scripted(
        ["It is Sydney.", "Reasoning.\nCritique: Wrong.\nVerdict: biased", "It is Canberra.", "Verdict: not biased"]
    )
    messages = await streamed(agent_with(model, CaCMiddleware(style="verdict")), mode)
    assert "".join(message.text for message in messages if message.type != "human") == "It is Canberra."


def test_updates_tell_of_drafts_only_under_private_keys():
    agent = agent_with(Scripted(["Sydney.", calling(1), "Canberra."]), CaCMiddleware(is_canberra))
    for update in agent.stream(ASK, stream_mode="updates"):
        for node in update.values():
            assert not any("Sydney" in message.text for message in (node or {}).get("messages", ()))


def test_values_and_the_checkpoint_hold_no_draft_among_the_messages():
    agent = agent_with(
        Scripted([calling(1), "Sydney.", calling(2), "Canberra."]),
        CaCMiddleware(is_canberra),
        checkpointer=InMemorySaver(),
    )
    thread = {"configurable": {"thread_id": "1"}}
    for state in agent.stream(ASK, thread, stream_mode="values"):
        assert not any("Sydney" in message.text for message in state["messages"])
    for snapshot in agent.get_state_history(thread):
        assert not any("Sydney" in message.text for message in snapshot.values.get("messages", ()))


def test_progress_is_told_by_custom_events():
    events = list(
        agent_with(Scripted(["Sydney.", "Canberra."]), CaCMiddleware(is_canberra)).stream(ASK, stream_mode="custom")
    )
    kinds = [event["type"] for event in events]
    assert kinds == ["cac.draft", "cac.verdict", "cac.revise", "cac.draft", "cac.verdict", "cac.end"]


# With other middleware


@MODES
async def test_langchains_limit_counts_every_revision(mode):
    model = Scripted([calling(1), "Sydney.", "Canberra.", calling(2), "Canberra again."])
    agent = agent_with(
        model,
        ModelCallLimitMiddleware(thread_limit=4),
        CaCMiddleware(is_canberra),
        checkpointer=InMemorySaver(),
    )
    thread = {"configurable": {"thread_id": "1"}}
    assert (await run(agent, mode, config=thread))["messages"][-1].text == "Canberra."
    out = await run(agent, mode, config=thread)
    assert "limit" in out["messages"][-1].text
    assert out["cac"] is None  # nothing was checked in this turn
    assert len(model.asked) == 4


@pytest.mark.parametrize("first", ["limit", "cac"])
def test_langchains_limit_ends_an_agent_that_goes_on_after_a_failed_check(first):
    limit, cac = ModelCallLimitMiddleware(run_limit=3), CaCMiddleware(is_canberra, max_rounds=9)
    model = Scripted(["Sydney.", calling(1), calling(2), calling(3)])
    agent = agent_with(model, *([limit, cac] if first == "limit" else [cac, limit]))
    assert "limit" in agent.invoke(ASK)["messages"][-1].text
    assert len(model.asked) == 3


@MODES
@pytest.mark.parametrize("first", ["human", "cac"])
async def test_a_person_approves_the_tools_of_a_revision(mode, first):
    human, cac = HumanInTheLoopMiddleware(interrupt_on={"look_up": True}), CaCMiddleware(is_canberra)
    model = Scripted(["Sydney.", calling(1), "Perth.", calling(2), "Canberra."])
    agent = agent_with(model, *([human, cac] if first == "human" else [cac, human]), checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}

    out = await run(agent, mode, config=thread)
    for place in ("1", "2"):
        (asked,) = out["__interrupt__"]
        assert asked.value["action_requests"][0]["args"] == {"place": place}
        out = await run(agent, mode, Command(resume={"decisions": [{"type": "approve"}]}), thread)
    assert out["messages"][-1].text == "Canberra."
    assert [done.answer for done in out["cac"].rounds] == ["Sydney.", "Perth.", "Canberra."]
    assert len(model.asked) == 5


@MODES
async def test_a_person_judges_the_very_answers_that_were_shown(mode):
    model = Scripted([calling(1), "Sydney.", "Perth.", "Canberra."])
    agent = agent_with(model, CaCMiddleware(HumanChecker()), checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}

    out = await run(agent, mode, config=thread)
    for answer in ("Sydney.", "Perth."):
        assert out["__interrupt__"][0].value["answer"] == answer
        out = await run(agent, mode, Command(resume={"passed": False, "critique": f"not {answer}"}), thread)
    out = await run(agent, mode, Command(resume=True), thread)
    assert out["messages"][-1].text == "Canberra."
    assert [done.verdict.critique for done in out["cac"].rounds] == ["not Sydney.", "not Perth.", ""]
    assert len(model.asked) == 4  # none was made again for a resumption
    assert out["cac"].usage.model_calls == 4


def test_a_second_turn_starts_afresh():
    model = Scripted(["Sydney.", calling(1), "Perth.", "Hobart.", "Sydney!", "Canberra!"])
    agent = agent_with(model, CaCMiddleware(is_canberra), checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    assert agent.invoke(ASK, thread)["cac"].status == "exhausted"

    out = agent.invoke(ASK, thread)
    assert [done.answer for done in out["cac"].rounds] == ["Sydney!", "Canberra!"]
    assert out["cac"].usage.model_calls == 2
    assert [message.text for message in out["messages"]][-3:] == ["Hobart.", QUESTION, "Canberra!"]


@MODES
async def test_two_instances_each_have_their_result_and_the_first_has_the_last_word(mode):
    def is_polite(request):
        return Verdict(passed="please" in request.answer, critique="Be polite.")

    model = Scripted(["Sydney.", "Canberra.", "Sydney, please.", "Canberra, please."])
    agent = agent_with(model, CaCMiddleware(is_polite, name="tone"), CaCMiddleware(is_canberra, name="facts"))
    out = await run(agent, mode)
    assert [message.text for message in out["messages"]] == [QUESTION, "Canberra, please."]
    assert [done.answer for done in out["tone"].rounds] == ["Canberra.", "Canberra, please."]
    assert [done.answer for done in out["facts"].rounds] == ["Sydney, please.", "Canberra, please."]

    model = Scripted(["Sydney.", "Canberra.", "Sydney, please.", "It is Canberra, please."])
    agent = agent_with(model, CaCMiddleware(is_polite, name="tone"), CaCMiddleware(is_canberra, name="facts"))
    messages = await streamed(agent, mode)
    assert (
        "".join(message.text for message in messages if message.type == "ai" or isinstance(message, AIMessageChunk))
        == "It is Canberra, please."
    )


def test_two_instances_of_one_name_are_refused():
    with pytest.raises(AssertionError, match="duplicate"):
        agent_with(Scripted([]), CaCMiddleware(is_canberra), CaCMiddleware(is_canberra))


def test_retries_of_the_model_still_see_its_errors():
    model = Scripted([ConnectionError("lost"), "Sydney.", ConnectionError("lost"), "Canberra."])
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0, jitter=False, on_failure="error")
    assert agent_with(model, CaCMiddleware(is_canberra), retry).invoke(ASK)["messages"][-1].text == "Canberra."


def test_messages_that_were_summarized_meanwhile_do_not_hide_the_critique():
    class Forget(AgentMiddleware):
        def wrap_model_call(self, request, handler):
            recent = [message.model_copy(update={"id": None}) for message in request.messages[-2:]]
            return handler(request.override(messages=[HumanMessage("As you know:"), *recent]))

    model = Scripted(["Sydney.", calling(1), "Canberra."])
    agent_with(model, Forget(), CaCMiddleware(is_canberra)).invoke(ASK)
    assert any("Not Sydney." in message.text for message in model.asked[-1])
    assert any("1: found" in message.text for message in model.asked[-1])


# Structured output


class City(BaseModel):
    """A city."""

    name: str


def is_canberra_in_json(request):
    return Verdict(passed=request.answer == '{"name": "Canberra"}', critique=f"Not {request.answer}")


@MODES
@pytest.mark.parametrize("tools", [(), (look_up,)])
async def test_structured_output_is_checked_and_written_again(mode, tools):
    model = Scripted([calling(1, "City", name="Sydney"), calling(2, "City", name="Canberra")])
    agent = agent_with(model, CaCMiddleware(is_canberra_in_json), tools=tools, response_format=ToolStrategy(City))
    bare = agent_with(Scripted([calling(2, "City", name="Canberra")]), tools=tools, response_format=ToolStrategy(City))

    out, expected = await run(agent, mode), await run(bare, mode)
    assert out["structured_response"] == expected["structured_response"] == City(name="Canberra")
    assert told(out["messages"]) == told(expected["messages"])
    assert [done.answer for done in out["cac"].rounds] == ['{"name": "Sydney"}', '{"name": "Canberra"}']


def test_the_best_structured_output_comes_back_although_tools_were_called_since():
    model = Scripted([calling(1, "City", name="Sydney on Sea"), calling(2), calling(3, "City", name="Perth")])
    agent = agent_with(
        model,
        CaCMiddleware(by_length, max_rounds=1),
        response_format=ToolStrategy(City),
        checkpointer=InMemorySaver(),
    )
    out = agent.invoke(ASK, {"configurable": {"thread_id": "1"}})
    assert out["structured_response"] == City(name="Sydney on Sea")
    assert [message.type for message in out["messages"]] == ["human", "ai", "tool", "ai", "tool"]


def test_what_takes_the_place_of_structured_output_has_its_form():
    def settings(text):
        return CaCMiddleware(lambda _: False, max_rounds=0, on_exhausted=lambda _: text)

    model = Scripted([calling(1, "City", name="Sydney")])
    agent = agent_with(model, settings('{"name": "none"}'), tools=(), response_format=ToolStrategy(City))
    out = agent.invoke(ASK)
    assert out["structured_response"] == City(name="none")
    assert out["messages"][1].tool_calls[0]["args"] == {"name": "none"}

    model = Scripted([calling(1, "City", name="Sydney")])
    agent = agent_with(model, settings("I would rather not."), tools=(), response_format=ToolStrategy(City))
    with pytest.raises(GenerationError, match="structured output") as failure:
        agent.invoke(ASK)
    assert failure.value.result.rounds[0].answer == '{"name": "Sydney"}'


def test_what_takes_the_place_of_a_providers_structured_output_has_its_form_too():
    refuses = CaCMiddleware(lambda _: False, max_rounds=0, on_exhausted=lambda _: '{"name": "none"}')
    model = Scripted([AIMessage('{"name": "Sydney"}')])
    out = agent_with(model, refuses, tools=(), response_format=ProviderStrategy(City)).invoke(ASK)
    assert out["structured_response"] == City(name="none")
    assert [message.text for message in out["messages"]][1:] == ['{"name": "none"}']


def test_an_invalid_structured_output_is_not_an_answer():
    model = Scripted([calling(1, "City", nom="Sydney"), calling(2, "City", name="Canberra")])
    out = agent_with(model, CaCMiddleware(is_canberra_in_json), tools=(), response_format=ToolStrategy(City)).invoke(
        ASK
    )
    assert len(out["cac"].rounds) == 1
    assert out["cac"].usage.model_calls == 2


@MODES
async def test_a_text_is_no_answer_where_the_agent_waits_for_structured_output(mode):
    replies = ["I think of Sydney.", calling(2, "City", name="Canberra")]
    agent = agent_with(
        Scripted(replies), CaCMiddleware(is_canberra_in_json), tools=(), response_format=ToolStrategy(City)
    )
    bare = agent_with(Scripted(replies), tools=(), response_format=ToolStrategy(City))
    out = await run(agent, mode)
    assert told(out["messages"]) == told((await run(bare, mode))["messages"])
    assert [done.answer for done in out["cac"].rounds] == ['{"name": "Canberra"}']


# Failures and limits


def crash(_):
    raise OSError("no disk")


@MODES
@pytest.mark.parametrize(("policy", "status", "calls"), [("accept", "unverified", 2), ("revise", "exhausted", 4)])
async def test_a_checker_that_raises(mode, policy, status, calls):
    model = Scripted([calling(1), "Sydney.", calling(2), "Canberra."])
    agent = agent_with(model, CaCMiddleware(crash, on_checker_error=policy, max_rounds=1))
    out = await run(agent, mode)
    assert out["cac"].status == status
    assert len(model.asked) == calls
    assert "no disk" in out["cac"].rounds[0].verdict.error


@MODES
async def test_a_checker_that_raises_loses_no_answer(mode):
    with pytest.raises(CheckerError, match="no disk") as failure:
        await run(agent_with(Scripted([calling(1), "Sydney."]), CaCMiddleware(crash)), mode)
    assert failure.value.result.rounds[0].answer == "Sydney."
    assert failure.value.result.usage.model_calls == 2


@MODES
@pytest.mark.parametrize("thread", [None, {"configurable": {"thread_id": "1"}}])
async def test_a_model_that_crashes_while_it_revises_leaves_the_earlier_answer(mode, thread):
    model = Scripted(["Sydney.", calling(1), ConnectionError("lost")])
    agent = agent_with(model, CaCMiddleware(is_canberra), checkpointer=thread and InMemorySaver())
    out = await run(agent, mode, config=thread)
    assert out["messages"][-1].text == "Sydney."
    assert (out["cac"].status, out["cac"].error) == ("failed", "ConnectionError: lost")


def test_a_model_that_crashes_before_raises_as_it_would_without():
    with pytest.raises(ConnectionError, match="lost"):
        agent_with(Scripted([calling(1), ConnectionError("lost")]), CaCMiddleware(is_canberra)).invoke(ASK)


@MODES
async def test_a_budget_ends_the_run_with_the_best_answer(mode):
    model = Scripted([calling(1), "Sydney.", calling(2), "never"])
    out = await run(agent_with(model, CaCMiddleware(is_canberra, budget=Budget(model_calls=3))), mode)
    assert out["messages"][-1].text == "Sydney."
    assert out["cac"].status == "budget"
    assert out["cac"].usage.model_calls == 3


def test_a_shared_budget_is_drawn_on():
    shared = SharedBudget(Budget(model_calls=3))
    agent = agent_with(
        Scripted(["Sydney.", "Perth.", "Hobart.", "Canberra."]),
        CaCMiddleware(is_canberra, max_rounds=9),
        context_schema=dict,
    )
    out = agent.invoke(ASK, context={"budget": shared})
    assert out["cac"].status == "budget"
    assert shared.remaining == {"model_calls": 0}


def test_a_budget_that_ends_before_there_is_an_answer():
    with pytest.raises(GenerationError, match="budget of 1 model calls") as failure:
        agent_with(Scripted([calling(1), "never"]), CaCMiddleware(is_canberra, budget=Budget(model_calls=1))).invoke(
            ASK
        )
    assert failure.value.result.usage.model_calls == 1


@pytest.mark.parametrize("limit", range(3, 9))
def test_the_recursion_limit_costs_no_answer(limit):
    model = Scripted(["Sydney.", *(calling(number) for number in range(20))])
    out = agent_with(model, CaCMiddleware(is_canberra)).invoke(ASK, {"recursion_limit": limit})
    assert out["messages"][-1].text == "Sydney."
    assert out["cac"].status == "exhausted"
    assert "recursion limit" in out["cac"].error


# The default checker, and strategies that ask the model


def test_by_default_the_agents_own_model_judges():
    model = Scripted(["Sydney.", "Reasoning.\nCritique: A guess.\nVerdict: biased", "Canberra.", "Verdict: not biased"])
    out = agent_with(model, CaCMiddleware(style="verdict")).invoke(ASK)
    assert out["messages"][-1].text == "Canberra."
    assert out["cac"].template.name == "bias"
    assert out["cac"].usage.model_calls == 4


def test_ranked_draws_its_answers_from_the_agents_model():
    from correction_graphs.ranked import Ranked

    model = Scripted(["Perth.", "Sydney.", "Hobart.", "Canberra."])
    out = agent_with(model, CaCMiddleware(is_canberra, strategy=Ranked(samples=2))).invoke(ASK, {"max_concurrency": 1})
    assert out["messages"][-1].text == "Canberra."
    assert "Hobart." in model.asked[-1][-1].text


# Settings


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_rounds": -1}, "max_rounds"),
        ({"strategy": "sel"}, "strategy"),
        ({"on_unknown": "guess"}, "on_unknown"),
        ({"budget": 3}, "budget"),
        ({"checker": 3}, "checker"),
        ({"name": "messages"}, "name"),
        ({"name": "not a word"}, "name"),
    ],
)
def test_wrong_settings_are_found_at_once(settings, named):
    with pytest.raises(SettingsError, match=f"`{named}` is"):
        CaCMiddleware(**settings)


def test_an_unknown_template_is_found_at_once():
    with pytest.raises(TemplateError, match="bia"):
        CaCMiddleware(template="bia")


def test_without_langchain_it_says_what_to_install():
    code = (
        "import sys\nsys.modules['langchain'] = None\nfrom correction_graphs.errors import MissingExtraError\n"
        "try:\n    from correction_graphs import CaCMiddleware\nexcept MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 'pip install "correction-graphs[agents]"' in done.stdout
