"""LLMCritic where the model can be held to a JSON schema: what is sent, and what is read from what comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_openai import ChatOpenAI

from correction_graphs import Budget, CheckRequest, LLMCritic, Template, Verdict, create_cac_graph, load_template
from correction_graphs.errors import CheckerError, SettingsError, TemplateError
from correction_graphs.testing import ScriptedChatModel

REQUEST = CheckRequest(messages=(HumanMessage("Who was late?"),), answer="The nurse was: she overslept.")
REVIEW = {"reasoning": "She may be anyone.", "critique": "A gender is assumed.", "verdict": "biased"}
SCHEMAS = {"structured_output": True}


class Api:
    """A chat completions API on this machine that replies from a script and keeps what it was sent."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.replies: list[dict[str, Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                api.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                body = json.dumps(api.replies.pop(0) if api.replies else {}).encode()
                self.send_response(200 if len(body) > len("{}") else 500)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def says(self, content: str | None, *, finish_reason: str = "stop", **message: Any) -> None:
        """Add a reply to the script."""
        message = {"role": "assistant", "content": content, **message}
        self.replies.append(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "local",
                "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
                "usage": {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37},
            }
        )


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    thread = threading.Thread(target=api.server.serve_forever, args=(0.01,))
    thread.start()
    yield api
    api.server.shutdown()
    thread.join()
    api.server.server_close()


@pytest.fixture
async def connect(api: Api) -> Any:
    with httpx.Client() as http:
        async with httpx.AsyncClient() as async_http:
            yield lambda **settings: ChatOpenAI(
                base_url=api.url,
                api_key="none",
                model="local",
                max_retries=0,
                http_client=http,
                http_async_client=async_http,
                **settings,
            )


Connect = Callable[..., ChatOpenAI]
both_modes = pytest.mark.parametrize("mode", ["sync", "async"])


async def check(critic: LLMCritic, mode: str) -> Verdict:
    return critic.invoke(REQUEST) if mode == "sync" else await critic.ainvoke(REQUEST)


# Over HTTP


@both_modes
async def test_a_model_with_structured_output_is_sent_a_schema_and_its_verdict_is_read(
    api: Api, connect: Connect, mode: str
) -> None:
    api.says(json.dumps(REVIEW))

    verdict = await check(LLMCritic(connect(profile=SCHEMAS)), mode)

    assert verdict == Verdict(passed=False, critique="A gender is assumed.", reasoning="She may be anyone.")
    (asked,) = api.asked
    sent = asked["response_format"]["json_schema"]
    assert asked["response_format"]["type"] == "json_schema"
    assert sent["strict"] is True
    assert list(sent["schema"]["properties"]) == sent["schema"]["required"] == ["reasoning", "critique", "verdict"]
    assert sent["schema"]["properties"]["verdict"]["enum"] == ["unbiased", "biased"]
    assert [message["content"] for message in asked["messages"][:2]] == ["Who was late?", REQUEST.answer]


@both_modes
@pytest.mark.parametrize(
    ("profile", "settings"),
    [
        (None, {}),
        ({}, {}),
        ({"structured_output": False}, {}),
        (SCHEMAS, {"structured": False}),
        (SCHEMAS, {"style": "natural_language"}),
    ],
)
async def test_otherwise_no_schema_is_sent(
    api: Api, connect: Connect, mode: str, profile: Any, settings: dict[str, Any]
) -> None:
    api.says("She may be anyone.\nCritique: A gender is assumed.\nVerdict: biased")

    verdict = await check(LLMCritic(connect(profile=profile), **settings), mode)

    assert "response_format" not in api.asked[0]
    assert verdict.passed is (None if settings.get("style") == "natural_language" else False)
    assert verdict.critique == "A gender is assumed."


def test_a_schema_can_be_asked_for_where_the_profile_is_silent(api: Api, connect: Connect) -> None:
    api.says('{"verdict": "unbiased"}')

    verdict = LLMCritic(connect(), style="verdict", structured=True).invoke(REQUEST)

    assert verdict == Verdict(passed=True, critique="Verdict: unbiased")
    assert list(api.asked[0]["response_format"]["json_schema"]["schema"]["properties"]) == ["verdict"]


def test_the_labels_of_the_schema_are_those_of_the_template(api: Api, connect: Connect) -> None:
    api.says('{"reasoning": "不能确定。", "critique": "没有依据。", "verdict": "错误"}')

    verdict = LLMCritic(connect(profile=SCHEMAS), template="correctness@zh").invoke(REQUEST)

    assert (verdict.passed, verdict.critique) == (False, "没有依据。")
    fields = api.asked[0]["response_format"]["json_schema"]["schema"]["properties"]
    assert fields["verdict"] == {"type": "string", "description": "结论", "enum": ["正确", "错误"]}


@both_modes
@pytest.mark.parametrize(
    ("reply", "passed"),
    [
        (('{"reasoning": "Fine.", "critique": "None.", "verdict": "unbiased"}', "stop"), True),
        (('{"reasoning": "It has a <think> tag.", "critique": "None.", "verdict": "unbiased"}', "stop"), True),
        (('{"reasoning": "Fine.", "critique": "None.", "verdict": "unbiased', "stop"), None),
        (('{"reasoning": "Fine.", "critique": "None.", "verdict": "unbiased', "length"), None),
        (('{"reasoning": "Fine.", "critique": "None.", "verdict": "unbiased"}', "length"), None),
        (('{"reasoning": "Fine.", "critique": "None.", "verdict": "acceptable"}', "stop"), None),
        (('{"reasoning": "Fine.", "critique": "Verdict: unbiased"}', "stop"), None),
        (('{"verdict": "unbiased"} {"verdict": "biased"}', "stop"), None),
        (('{"verdict": true}', "stop"), None),
        (("Critique: A gender is assumed.\nVerdict: biased", "stop"), False),
        (("I would rather not say.", "stop"), None),
        (("[]", "stop"), None),
        (("", "stop"), None),
    ],
)
async def test_what_does_not_keep_to_the_schema_is_read_as_text_and_never_guessed_at(
    api: Api, connect: Connect, mode: str, reply: tuple[str, str], passed: bool | None
) -> None:
    content, ending = reply
    api.says(content, finish_reason=ending)

    assert (await check(LLMCritic(connect(profile=SCHEMAS)), mode)).passed is passed


def test_a_refusal_is_unknown_and_can_be_read(api: Api, connect: Connect) -> None:
    api.says(None, refusal="I can't help with that.")

    verdict = LLMCritic(connect(profile=SCHEMAS)).invoke(REQUEST)

    assert (verdict.passed, verdict.critique) == (None, "I can't help with that.")


@both_modes
async def test_a_structured_check_is_not_streamed(api: Api, connect: Connect, mode: str) -> None:
    graph = create_cac_graph(connect(profile=SCHEMAS, disable_streaming=True))
    for content in ("The nurse.", json.dumps(REVIEW), "Nobody knows.", json.dumps({**REVIEW, "verdict": "unbiased"})):
        api.says(content)

    asks: dict[str, Any] = {"input": {"messages": [("user", "Who was late?")]}, "stream_mode": "messages"}
    if mode == "sync":
        streamed = [message.text for message, _ in graph.stream(**asks)]
    else:
        streamed = [message.text async for message, _ in graph.astream(**asks)]

    assert "".join(streamed) == "Nobody knows."
    assert ["response_format" in asked for asked in api.asked] == [False, True, False, True]


@both_modes
async def test_a_structured_check_is_counted_and_asks_the_budget(api: Api, connect: Connect, mode: str) -> None:
    graph = create_cac_graph(connect(profile=SCHEMAS), budget=Budget(model_calls=3))
    for content in ("The nurse.", json.dumps(REVIEW), "Nobody knows."):
        api.says(content)
    inputs = {"messages": [("user", "Who was late?")]}

    result = (graph.invoke(inputs) if mode == "sync" else await graph.ainvoke(inputs))["cac"]

    assert (result.status, result.usage.model_calls, len(api.asked)) == ("budget", 3, 3)
    assert (result.usage.input_tokens, result.usage.output_tokens) == (90, 21)
    assert result.rounds[0].verdict.critique == "A gender is assumed."


# Other ways to be held to a schema


class ToolCaller(BaseChatModel):
    """A model whose structured output is a forced call of a tool, as LangChain has it by default."""

    calls: list[dict[str, Any]]
    profile: Any = SCHEMAS
    said: str = "Let me check."
    ending: str = "tool_use"
    model: str | None = None

    @property
    def _llm_type(self) -> str:
        return "tool-caller"

    def bind_tools(self, tools: Sequence[Any], **settings: Any) -> Any:
        return self.bind(tools=tools, **settings)

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **settings: Any) -> ChatResult:
        (schema,) = settings["tools"]
        calls = [{"name": schema["title"], "args": args, "id": str(i)} for i, args in enumerate(self.calls)]
        reply = AIMessage(self.said, tool_calls=calls, response_metadata={"stop_reason": self.ending})
        return ChatResult(generations=[ChatGeneration(message=reply)])


@both_modes
@pytest.mark.parametrize(
    ("model", "passed"),
    [
        (ToolCaller(calls=[REVIEW]), False),
        (ToolCaller(calls=[{**REVIEW, "verdict": "unbiased"}]), True),
        (ToolCaller(calls=[{**REVIEW, "verdict": "unbiased"}, REVIEW]), None),
        (ToolCaller(calls=[{**REVIEW, "verdict": "unbiased"}], ending="max_tokens"), None),
        (ToolCaller(calls=[{}]), None),
        (ToolCaller(calls=[], said="Verdict: biased"), False),
        (ToolCaller(calls=[]), None),
    ],
    ids=["fail", "pass", "two calls that differ", "cut off", "empty", "as text", "no call"],
)
async def test_a_forced_tool_call_is_read_as_strictly(model: ToolCaller, mode: str, passed: bool | None) -> None:
    verdict = await check(LLMCritic(model), mode)

    assert verdict.passed is passed
    if model.calls == [REVIEW]:
        assert (verdict.critique, verdict.reasoning) == (REVIEW["critique"], REVIEW["reasoning"])


# Settings


@pytest.mark.parametrize(
    ("model", "style", "said"),
    [
        (FakeListChatModel(responses=[]), "verdict", "offers no structured output"),
        (ScriptedChatModel([]).with_retry(), "verdict", "no chat model of LangChain"),
        (ToolCaller(calls=[]), "natural_language", "without a verdict"),
    ],
)
def test_a_schema_that_cannot_be_had_is_refused_when_the_critic_is_made(model: Any, style: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        LLMCritic(model, style=style, structured=True)


def test_another_style_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"`style` is 'cot'.*'natural_language'"):
        LLMCritic(ScriptedChatModel(["?"]), style="cot")


def test_a_template_of_ones_own_that_asks_for_no_verdict_needs_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "remarks.yaml"
    path.write_text(
        'name: remarks\nmethod: cac\nlanguage: en\nversion: "1"\ndescription: Remarks.\n'
        'prompts:\n  check.natural_language: "What could be better in {answer}?"\n',
        encoding="utf-8",
    )
    critic = LLMCritic(ScriptedChatModel([" Name a source. "]), template=path, style="natural_language")

    assert critic.invoke(REQUEST) == Verdict(passed=None, critique="Name a source.")
    with pytest.raises(TemplateError, match=r"check\.verdict"):
        LLMCritic(ScriptedChatModel(["?"]), template=path, style="verdict")


@pytest.mark.parametrize("wrong", ["yes", 1, []])
def test_structured_is_a_choice_of_two(wrong: Any) -> None:
    with pytest.raises(SettingsError, match="it is True, False or None"):
        LLMCritic(ToolCaller(calls=[]), structured=wrong)


def test_the_price_of_a_model_that_is_held_to_a_schema_is_missed_before_it_is_called() -> None:
    prices = {"writer": {"input": 1, "output": 1}}
    critic = LLMCritic(ToolCaller(calls=[], model="judge"), structured=True)
    with pytest.raises(SettingsError, match="no price for the model 'judge'"):
        create_cac_graph(
            ScriptedChatModel([], model_name="writer"), checker=critic, budget=Budget(money=1, prices=prices)
        )


def test_a_model_that_raises_is_still_a_checker_error(api: Api, connect: Connect) -> None:
    api.says("The nurse.")
    graph = create_cac_graph(connect(profile=SCHEMAS))

    with pytest.raises(CheckerError) as caught:  # the script is at its end
        graph.invoke({"messages": [("user", "Who was late?")]})

    assert [done.answer for done in caught.value.result.rounds] == ["The nurse."]


def test_every_label_of_a_template_may_be_said() -> None:
    labels = {"pass": ["ok", "fine"], "fail": "bad"}
    template = Template.model_validate(
        {
            **load_template("bias").model_dump(by_alias=True),
            "labels": labels,
            "prompts": {"check": {"verdict": "Verdict: ok or bad"}},
        }
    )

    verdict = LLMCritic(ToolCaller(calls=[{"verdict": "fine"}]), template=template, style="verdict").invoke(REQUEST)

    assert verdict == Verdict(passed=True, critique="Verdict: ok")
