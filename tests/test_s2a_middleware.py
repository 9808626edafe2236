"""Filtered messages before an agent's model: what the model sees, what the history keeps, and what is filtered when."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
)
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from correction_graphs import Budget, CaCMiddleware, S2AMiddleware, Verdict
from correction_graphs.errors import FilterError, SettingsError, TemplateError
from correction_graphs.testing import ScriptedChatModel
from correction_graphs.usage import SharedBudget

TEXT = "I think it is Sydney. Australia has 6 states. What is the capital of Australia?"
ASK = {"messages": [("user", TEXT)]}
FILTERED = "Context: Australia has 6 states.\nQuestion: What is the capital of Australia?"
INVENTED = "Context: Australia has 8 states.\nQuestion: What is the capital of Australia?"
SHOWN = "Australia has 6 states.\n\nWhat is the capital of Australia?\n\nAnswer without bias, from what is said above."
MODES = pytest.mark.parametrize("mode", ["sync", "async"])


@tool
def look_up(place: str) -> str:
    """Look a place up."""
    return f"{place}: found, says Sydney's mayor"


def calling(number: int, tool: str = "look_up", /, **args) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": tool, "args": args or {"place": str(number)}, "id": f"call{number}"}])


def agent_with(model, *middleware, tools=(look_up,), **settings):
    return create_agent(model, list(tools), middleware=list(middleware), **settings)


async def run(agent, mode, inputs=ASK, config=None, **more):
    return agent.invoke(inputs, config, **more) if mode == "sync" else await agent.ainvoke(inputs, config, **more)


def told(messages):
    return [(m.type, m.content, [c["args"] for c in getattr(m, "tool_calls", ())]) for m in messages]


# What the model sees, and what stays


@MODES
async def test_the_model_sees_the_filtered_text_and_the_history_keeps_the_users(mode):
    model = ScriptedChatModel([FILTERED, "Canberra."])
    out = await run(agent_with(model, S2AMiddleware()), mode)

    assert [message.text for message in out["messages"]] == [TEXT, "Canberra."]
    assert [message.text for message in model.asked[1]] == [SHOWN]
    assert set(out) == {"messages", "s2a"}
    assert (out["s2a"].question, out["s2a"].usage.model_calls) == ("What is the capital of Australia?", 1)
    assert [span.text for span in out["s2a"].dropped] == ["I think it is Sydney."]


@MODES
@pytest.mark.parametrize("thread", [None, "1"])
async def test_a_loop_of_tools_costs_one_call_of_the_filter_and_never_sees_the_original(mode, thread):
    calls = [calling(number) for number in range(5)]
    filterer, model = ScriptedChatModel([FILTERED]), ScriptedChatModel([*calls, "Canberra."])
    bare = agent_with(ScriptedChatModel([*calls, "Canberra."]))
    saver = InMemorySaver() if thread else None
    config = {"configurable": {"thread_id": thread}} if thread else None
    agent = agent_with(model, S2AMiddleware(filterer), system_prompt="Be brief.", checkpointer=saver)

    out = await run(agent, mode, config=config)

    assert told(out["messages"]) == told((await run(bare, mode))["messages"])
    assert len(filterer.asked) == 1
    assert len(model.asked) == 6
    for asked in model.asked:
        assert [message.text for message in asked[:2]] == ["Be brief.", SHOWN]
    last = model.asked[-1]
    assert [message.type for message in last] == ["system", "human", *["ai", "tool"] * 5]
    assert last[-1].text == "4: found, says Sydney's mayor"  # what tools say is not the user's


@MODES
async def test_what_was_filtered_in_one_turn_stays_filtered_in_the_next(mode):
    second = "Surely it is big? How many people live there?"
    filtered = "Context: none\nQuestion: How many people live there?"
    filterer, model = ScriptedChatModel([FILTERED, filtered]), ScriptedChatModel(["Canberra.", "470,000."])
    agent = agent_with(model, S2AMiddleware(filterer), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}

    first_out = await run(agent, mode, config=config)
    out = await run(agent, mode, {"messages": [("user", second)]}, config)

    assert [message.text for message in out["messages"]] == [TEXT, "Canberra.", second, "470,000."]
    shown = [message.text for message in model.asked[1]]
    assert "Sydney" not in shown[0]
    assert "Surely" not in shown[2]
    assert first_out["s2a"].texts[0].index == 0
    assert [text.index for text in out["s2a"].texts] == [2]  # this turn's alone
    assert len(filterer.asked) == 2


def test_a_message_that_is_edited_in_history_is_filtered_anew():
    edited = "I am sure it is Perth. What is the capital of Austria?"
    filterer = ScriptedChatModel([FILTERED, "Context: none\nQuestion: What is the capital of Austria?"])
    model = ScriptedChatModel(["Canberra.", "Vienna."])
    agent = agent_with(model, S2AMiddleware(filterer), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    out = agent.invoke(ASK, config)

    agent.invoke({"messages": [HumanMessage(edited, id=out["messages"][0].id)]}, config)

    assert "Perth" in filterer.asked[1][0].text
    assert all("Perth" not in message.text for message in model.asked[1])


def test_earlier_messages_are_filtered_too_where_the_whole_conversation_is():
    earlier = "I hate Sydney. Is it large?"
    filterer = ScriptedChatModel(["Context: none\nQuestion: Is it large?"] * 2)
    model = ScriptedChatModel(["Yes."])
    agent = agent_with(model, S2AMiddleware(filterer, scope="conversation", instruct=False))
    agent.invoke({"messages": [("user", earlier), ("ai", "Yes."), ("user", "I love Perth. Is it large?")]})
    assert [message.text for message in model.asked[0]] == ["Is it large?", "Yes.", "Is it large?"]


def test_both_modes_of_the_graph_are_there():
    model = ScriptedChatModel([FILTERED, "Canberra."])
    agent_with(model, S2AMiddleware(mode="keep_original")).invoke(ASK)
    assert model.asked[1][0].text.startswith(TEXT)
    assert "Australia has 6 states.\n\nWhat is the capital of Australia?" in model.asked[1][0].text


def test_clean_text_costs_no_call():
    model = ScriptedChatModel(["Canberra."])
    out = agent_with(model, S2AMiddleware(skip_if="clean")).invoke(
        {"messages": [("user", "What is the capital of Australia?")]}
    )
    assert out["messages"][-1].text == "Canberra."
    assert out["s2a"].texts[0].skipped
    assert model.asked[0][0].text == "What is the capital of Australia?"


def test_images_stay_in_place():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    model = ScriptedChatModel([FILTERED, "Canberra."])
    asked = HumanMessage([{"type": "text", "text": TEXT}, image])
    agent_with(model, S2AMiddleware()).invoke({"messages": [asked]})
    assert model.asked[1][0].content == [{"type": "text", "text": SHOWN}, image]


# The stream


@MODES
@pytest.mark.parametrize("thread", [False, True])
async def test_what_the_filter_writes_does_not_reach_the_token_stream(mode, thread):
    model = ScriptedChatModel([FILTERED, calling(1), "Canberra."])
    agent = agent_with(model, S2AMiddleware(), checkpointer=InMemorySaver() if thread else None)
    config = {"configurable": {"thread_id": "1"}} if thread else None
    if mode == "sync":
        parts = [part[0] for part in agent.stream(ASK, config, stream_mode="messages")]
    else:
        parts = [part[0] async for part in agent.astream(ASK, config, stream_mode="messages")]
    said = "".join(part.text for part in parts if isinstance(part, AIMessage | AIMessageChunk))
    assert said == "Canberra."
    assert not any("states" in part.text for part in parts)


@MODES
async def test_progress_is_told_by_custom_events(mode):
    model = ScriptedChatModel([INVENTED, FILTERED, "Canberra."])
    agent = agent_with(model, S2AMiddleware())
    if mode == "sync":
        events = list(agent.stream(ASK, stream_mode="custom"))
    else:
        events = [event async for event in agent.astream(ASK, stream_mode="custom")]
    assert [event["type"] for event in events] == ["s2a.rejected", "s2a.filtered"]


# When the filter fails


@MODES
@pytest.mark.parametrize("thread", [False, True])
async def test_a_filter_that_invents_is_told_once_and_then_not_believed(mode, thread):
    filterer, model = ScriptedChatModel([INVENTED, INVENTED]), ScriptedChatModel([calling(1), "Canberra."])
    agent = agent_with(model, S2AMiddleware(filterer), checkpointer=InMemorySaver() if thread else None)
    out = await run(agent, mode, config={"configurable": {"thread_id": "1"}} if thread else None)

    assert "added" in out["s2a"].fallback
    assert {violation.attempt for violation in out["s2a"].violations} == {0, 1}
    assert model.asked[0][0].text.startswith(TEXT)
    assert len(filterer.asked) == 2  # and not again before the second call of the model
    assert out["messages"][-1].text == "Canberra."


@MODES
async def test_a_filter_that_crashes_costs_no_answer(mode):
    filterer, model = ScriptedChatModel([RuntimeError("no route")]), ScriptedChatModel(["Canberra."])
    out = await run(agent_with(model, S2AMiddleware(filterer)), mode)
    assert out["messages"][-1].text == "Canberra."
    assert "no route" in out["s2a"].fallback
    assert "no route" in out["s2a"].error


@MODES
@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("replies", [[INVENTED, INVENTED], [RuntimeError("no route")]])
async def test_on_request_a_failed_filter_raises(mode, thread, replies):
    agent = agent_with(
        ScriptedChatModel(["never asked for"]),
        S2AMiddleware(ScriptedChatModel(replies), on_filter_failure="raise"),
        checkpointer=InMemorySaver() if thread else None,
    )
    with pytest.raises(FilterError) as caught:
        await run(agent, mode, config={"configurable": {"thread_id": "1"}} if thread else None)
    assert caught.value.result.usage.model_calls == len(replies)


@MODES
async def test_a_budget_that_is_spent_leaves_the_original(mode):
    filterer, model = ScriptedChatModel([INVENTED]), ScriptedChatModel(["Canberra."])
    out = await run(agent_with(model, S2AMiddleware(filterer, budget=Budget(model_calls=1))), mode)
    assert len(filterer.asked) == 1
    assert out["messages"][-1].text == "Canberra."
    assert "budget of 1 model calls" in out["s2a"].fallback


def test_a_shared_budget_is_drawn_on():
    shared = SharedBudget(Budget(model_calls=3))
    agent = agent_with(ScriptedChatModel([FILTERED, "Canberra."]), S2AMiddleware())
    agent.invoke(ASK, context={"budget": shared})
    assert shared.spent.model_calls == 1  # the filter's; the agent's own calls hear of it through callbacks


def test_ctrl_c_leaves_at_once_and_carries_what_was_spent():
    class Interrupting(ScriptedChatModel):
        def _generate(self, *_, **__):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        agent_with(ScriptedChatModel(["never asked for"]), S2AMiddleware(Interrupting([]))).invoke(ASK)
    assert caught.value.result.usage.model_calls == 1


# With other middleware


@MODES
@pytest.mark.parametrize("thread", [False, True])
async def test_in_front_of_a_check_critic_and_revisions_see_the_filtered_text(mode, thread):
    shown = []

    def is_canberra(request):
        shown.append([message.text for message in request.messages])
        return Verdict(passed="Canberra" in request.answer, critique="No.")

    filterer = ScriptedChatModel([FILTERED])
    model = ScriptedChatModel([calling(1), "Sydney.", calling(2), "Canberra."])
    agent = agent_with(
        model, S2AMiddleware(filterer), CaCMiddleware(is_canberra), checkpointer=InMemorySaver() if thread else None
    )
    out = await run(agent, mode, config={"configurable": {"thread_id": "1"}} if thread else None)

    assert out["messages"][0].text == TEXT
    assert out["messages"][-1].text == "Canberra."
    assert (out["s2a"].filtered, out["cac"].status) == (True, "passed")
    assert len(filterer.asked) == 1
    everything = [text for messages in shown for text in messages]
    everything += [message.text for asked in model.asked for message in asked]
    assert not any("I think it is Sydney" in text for text in everything)


@MODES
@pytest.mark.parametrize("thread", [False, True])
async def test_behind_a_check_no_revision_shows_what_was_filtered_out(mode, thread):
    filterer = ScriptedChatModel([FILTERED])
    model = ScriptedChatModel([calling(1), "Sydney.", "Perth.", "Canberra."])
    checker = CaCMiddleware(lambda request: "Canberra" in request.answer)
    agent = agent_with(model, checker, S2AMiddleware(filterer), checkpointer=InMemorySaver() if thread else None)
    out = await run(agent, mode, config={"configurable": {"thread_id": "1"}} if thread else None)

    assert out["messages"][-1].text == "Canberra."
    assert out["s2a"].dropped[0].text == "I think it is Sydney."
    assert not any("I think it is Sydney" in message.text for asked in model.asked for message in asked)
    if not thread:
        assert len(filterer.asked) == 1


def test_a_model_that_is_tried_again_does_not_cost_the_filter_twice():
    filterer = ScriptedChatModel([FILTERED])
    model = ScriptedChatModel([ConnectionError("gone"), "Canberra."])
    agent = agent_with(model, ModelRetryMiddleware(max_retries=2, initial_delay=0), S2AMiddleware(filterer))
    assert agent.invoke(ASK)["messages"][-1].text == "Canberra."
    assert len(filterer.asked) == 1


@MODES
async def test_what_other_middleware_appends_does_not_hide_the_users_message(mode):
    class Appends(AgentMiddleware):
        def wrap_model_call(self, request, handler):
            return handler(request.override(messages=[*request.messages, HumanMessage("Today is Monday.")]))

        async def awrap_model_call(self, request, handler):
            return await handler(request.override(messages=[*request.messages, HumanMessage("Today is Monday.")]))

    model = ScriptedChatModel([FILTERED, "Canberra."])
    out = await run(agent_with(model, Appends(), S2AMiddleware()), mode)
    assert out["s2a"].filtered
    assert [message.text for message in model.asked[1]] == [SHOWN, "Today is Monday."]


def test_copies_without_ids_are_known_by_their_text():
    class Copies(AgentMiddleware):
        def wrap_model_call(self, request, handler):
            return handler(request.override(messages=[HumanMessage(m.content) for m in request.messages]))

    model = ScriptedChatModel([FILTERED, "Canberra."])
    agent_with(model, Copies(), S2AMiddleware()).invoke(ASK)
    assert [message.text for message in model.asked[1]] == [SHOWN]


def test_two_instances_both_remember_earlier_turns():
    first = ScriptedChatModel([FILTERED, "Context: none\nQuestion: And of Austria?"])
    second = ScriptedChatModel(
        ["Context: none\nQuestion: What is the capital of Australia?", "Context: none\nQuestion: And of Austria?"]
    )
    model = ScriptedChatModel(["Canberra.", "Vienna."])
    agent = agent_with(
        model,
        S2AMiddleware(first, name="opinions", instruct=False),
        S2AMiddleware(second, template="relevant", name="distractors", instruct=False, guards=False),
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "1"}}
    agent.invoke(ASK, config)
    agent.invoke({"messages": [("user", "I like Graz. And of Austria?")]}, config)
    assert [message.text for message in model.asked[1]] == [
        "What is the capital of Australia?",
        "Canberra.",
        "And of Austria?",
    ]


def test_a_filter_that_failed_is_tried_again_in_the_next_turn():
    filterer = ScriptedChatModel([ConnectionError("gone"), FILTERED])
    model = ScriptedChatModel(["Sydney.", "Canberra."])
    agent = agent_with(model, S2AMiddleware(filterer), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    assert "gone" in agent.invoke(ASK, config)["s2a"].fallback
    out = agent.invoke(ASK, config)
    assert out["s2a"].filtered
    assert model.asked[1][-1].text == SHOWN


def test_the_same_text_again_is_known_and_told():
    filterer, model = ScriptedChatModel([FILTERED]), ScriptedChatModel(["Canberra.", "Still Canberra."])
    agent = agent_with(model, S2AMiddleware(filterer), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    agent.invoke(ASK, config)
    out = agent.invoke(ASK, config)
    assert len(filterer.asked) == 1
    assert out["s2a"].filtered
    assert out["s2a"].texts[0].index == 2
    assert out["s2a"].usage.model_calls == 0


@MODES
async def test_two_instances_filter_one_after_the_other(mode):
    drops_six = "Context: none\nQuestion: What is the capital of Australia?"
    first, second = ScriptedChatModel([FILTERED]), ScriptedChatModel([drops_six])
    model = ScriptedChatModel(["Canberra."])
    agent = agent_with(
        model,
        S2AMiddleware(first, name="opinions", instruct=False),
        S2AMiddleware(second, template="relevant", name="distractors", instruct=False, guards=False),
    )
    out = await run(agent, mode)
    assert model.asked[0][0].text == "What is the capital of Australia?"
    assert "Sydney" not in second.asked[0][0].text
    assert out["opinions"].dropped[0].text == "I think it is Sydney."
    assert out["distractors"].dropped[0].text == "Australia has 6 states."


def test_two_instances_of_one_name_are_refused():
    with pytest.raises(AssertionError):
        agent_with(ScriptedChatModel([]), S2AMiddleware(), S2AMiddleware())


def test_what_other_middleware_puts_in_is_left_alone():
    class Adds(AgentMiddleware):
        def wrap_model_call(self, request, handler):
            return handler(request.override(messages=[HumanMessage("I believe in tests."), *request.messages]))

    filterer, model = ScriptedChatModel([FILTERED]), ScriptedChatModel(["Canberra."])
    agent_with(model, Adds(), S2AMiddleware(filterer, scope="conversation")).invoke(ASK)
    assert [message.text for message in model.asked[0]] == ["I believe in tests.", SHOWN]


def test_a_summary_is_not_the_users_text():
    filterer = ScriptedChatModel([FILTERED])
    model = ScriptedChatModel(["Canberra."])
    summarizer = SummarizationMiddleware(
        ScriptedChatModel(["I think they talked."]), trigger=("messages", 4), keep=("messages", 1)
    )
    agent = agent_with(model, summarizer, S2AMiddleware(filterer, scope="conversation"))
    history = [
        ("user", "I like tea. Hello?"),
        ("ai", "Hello."),
        ("user", "I like you. So?"),
        ("ai", "So."),
        ("user", TEXT),
    ]
    agent.invoke({"messages": history})
    assert len(filterer.asked) == 1
    assert "I think they talked." in model.asked[0][0].text
    assert model.asked[0][-1].text == SHOWN


@MODES
async def test_a_person_approves_tools_and_nothing_is_filtered_twice(mode):
    filterer, model = ScriptedChatModel([FILTERED]), ScriptedChatModel([calling(1), "Canberra."])
    agent = agent_with(
        model,
        S2AMiddleware(filterer),
        HumanInTheLoopMiddleware(interrupt_on={"look_up": True}),
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "1"}}
    assert "__interrupt__" in await run(agent, mode, config=config)
    out = await run(agent, mode, Command(resume={"decisions": [{"type": "approve"}]}), config)
    assert out["messages"][-1].text == "Canberra."
    assert out["s2a"].filtered
    assert len(filterer.asked) == 1


def test_langchains_limit_does_not_count_the_filter():
    model = ScriptedChatModel([FILTERED, "Canberra."])
    agent = agent_with(model, ModelCallLimitMiddleware(run_limit=1), S2AMiddleware())
    assert agent.invoke(ASK)["messages"][-1].text == "Canberra."


class City(BaseModel):
    """A city."""

    name: str


@MODES
async def test_structured_output_is_as_ever(mode):
    model = ScriptedChatModel([FILTERED, calling(1, "City", name="Canberra")])
    out = await run(agent_with(model, S2AMiddleware(), response_format=ToolStrategy(City)), mode)
    assert out["structured_response"] == City(name="Canberra")
    assert isinstance(out["messages"][-1], ToolMessage)


def test_the_system_prompt_is_left_alone():
    model = ScriptedChatModel([FILTERED, "Canberra."])
    agent_with(model, S2AMiddleware(), system_prompt="I think you are kind.").invoke(ASK)
    assert model.asked[1][0] == SystemMessage("I think you are kind.")


def test_a_killed_model_call_does_not_cost_the_filters_again():
    filterer = ScriptedChatModel([FILTERED])
    model = ScriptedChatModel([ConnectionError("gone"), "Canberra."])
    agent = agent_with(model, S2AMiddleware(filterer), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    with pytest.raises(ConnectionError):
        agent.invoke(ASK, config, durability="sync")
    out = agent.invoke(None, config, durability="sync")
    assert out["messages"][-1].text == "Canberra."
    assert out["s2a"].usage.model_calls == 1
    assert len(filterer.asked) == 1


def test_checkpoints_pass_strict_msgpack():
    code = textwrap.dedent(
        """
        from langchain.agents import create_agent
        from langgraph.checkpoint.memory import InMemorySaver
        from correction_graphs import S2AMiddleware
        from correction_graphs.testing import ScriptedChatModel

        filtered = "Context: none\\nQuestion: What is the capital of Australia?"
        model = ScriptedChatModel([filtered, "Canberra.", "Yes."])
        agent = create_agent(model, middleware=[S2AMiddleware(skip_if=lambda text: "sure" in text)], checkpointer=InMemorySaver())
        config = {"configurable": {"thread_id": "1"}}
        agent.invoke({"messages": [("user", "I think so. What is the capital of Australia?")]}, config)
        out = agent.invoke({"messages": [("user", "Are you sure?")]}, config)
        assert "I think so" not in model.asked[2][0].text, model.asked
        print(out["s2a"].texts[0].skipped)
        """
    )
    env = {**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true"}
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert "unregistered" not in done.stderr


# Settings


async def _later(_):
    return True


@pytest.mark.parametrize("named", ["skip_if", "scope"])
def test_a_function_that_raises_is_named(named):
    agent = agent_with(ScriptedChatModel([]), S2AMiddleware(**{named: lambda _: {}["x"]}))
    with pytest.raises(SettingsError, match=f"`{named}` raised KeyError"):
        agent.invoke(ASK)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"rewrite": "parts"}, "rewrite"),
        ({"mode": "both"}, "mode"),
        ({"instruct": "yes"}, "instruct"),
        ({"scope": "first"}, "scope"),
        ({"scope": lambda: True}, "scope"),
        ({"on_filter_failure": "ignore"}, "on_filter_failure"),
        ({"skip_if": "short"}, "skip_if"),
        ({"budget": 3}, "budget"),
        ({"skip_if": _later}, "skip_if"),
        ({"scope": _later}, "scope"),
        ({"name": "messages"}, "name"),
        ({"name": "two words"}, "name"),
        ({"filter_model": 3}, "model"),
    ],
)
def test_wrong_settings_are_found_at_once(settings, named):
    with pytest.raises(SettingsError, match=f"`{named}` "):
        S2AMiddleware(**settings)


def test_an_unknown_template_is_found_at_once():
    with pytest.raises(TemplateError, match="unbiased"):
        S2AMiddleware(template="unbised")


@pytest.mark.parametrize("messages", [[], [AIMessage("Hello.")], [SystemMessage("Be brief.")]])
def test_where_no_user_has_said_anything_the_model_is_simply_asked(messages):
    model = ScriptedChatModel(["How can I help?"])
    out = create_agent(model, middleware=[S2AMiddleware()]).invoke({"messages": messages})
    assert [message.text for message in out["messages"]] == [*(each.text for each in messages), "How can I help?"]
    assert [[message.text for message in asked] for asked in model.asked] == [[each.text for each in messages]]
