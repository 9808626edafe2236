"""Reading and building LangChain messages, and marking text that must not be taken for instructions."""

# ruff: noqa: RUF001, SIM905 -- punctuation of other scripts is the point; lists of words read best as text

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeGuard
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from correction_graphs.errors import ConversationError
from correction_graphs.results import unicode_text


def check_conversation(messages: Sequence[BaseMessage]) -> None:
    """Raise unless the conversation is one that a model is to answer now.

    Raises:
        ConversationError: If there are no messages, or only system messages, or the last one is an answer already.
    """
    if not messages:
        raise ConversationError('"messages" is empty; give at least one message, such as ("user", "your question")')
    if isinstance(messages[-1], AIMessage):
        raise ConversationError(
            "the conversation ends in an AI message, so there is nothing to answer; "
            "append the user's next message, or leave the last answer out to have it written again"
        )
    if all(message.type == "system" for message in messages):
        raise ConversationError(
            "the conversation has system messages only, so there is no question to answer, or to ask again; append the "
            'user\'s, such as ("user", "your question")'
        )


def answer_of(message: AIMessage) -> str:
    """Return what a model answered, as text that can be stored: where it wrote nothing but a refusal, that."""
    text = str(message.text)
    if not text.strip():
        blocks = (block for block in message.content if isinstance(block, dict) and block.get("type") == "refusal")
        refusals = [message.additional_kwargs.get("refusal"), *(block.get("refusal") for block in blocks)]
        text = next((refusal for refusal in refusals if refusal and isinstance(refusal, str)), text)
    return unicode_text(text)


def with_own_id(message: AIMessage, others: Iterable[BaseMessage] = ()) -> AIMessage:
    """Return a message with an id that none of the others has: LangGraph replaces a message by one with its id."""
    if message.id and all(message.id != other.id for other in others):
        return message
    return message.model_copy(update={"id": str(uuid4())})


def is_from_user(message: BaseMessage) -> TypeGuard[HumanMessage]:
    """Whether the user wrote a message: LangChain marks human messages that its middleware wrote."""
    return isinstance(message, HumanMessage) and "lc_source" not in message.additional_kwargs


def text_of(message: BaseMessage) -> str:
    """Return the text of a message, each block of it on a line of its own."""
    if isinstance(message.content, str):
        return message.content
    texts = (
        block if isinstance(block, str) else block.get("text", "") if block.get("type") == "text" else ""
        for block in message.content
    )
    return "\n".join(text for text in texts if text)


def question_of(messages: Sequence[BaseMessage]) -> str:
    """Return the text of the newest message the user wrote, "" if there is none."""
    return next((message.text for message in reversed(messages) if is_from_user(message)), "")


def is_cut_off(reply: AIMessage) -> bool:
    """Whether a model says that its reply broke off; each provider has its own way of saying so."""
    told = reply.response_metadata
    ends = [told.get(name) for name in ("finish_reason", "stop_reason", "stopReason", "done_reason", "status")]
    return any(end in ends for end in ("length", "max_tokens", "timeout", "MAX_TOKENS", "incomplete"))


def said(part: str) -> str:
    """Return a part of a model's reply, "" if it only says that there is nothing.

    Args:
        part: Such as "Canberra is a city." or "(none)".
    """
    part = part.strip()
    bare = part.strip(" .*_()（）[]【】<>。“”\"'`").casefold()
    return "" if not bare or bare in _NOTHING else part


def squeezed(text: str) -> str:
    """Return a text with one space for each run of white space."""
    return " ".join(text.split())


def fence(text: str, tag: str = "text") -> str:
    """Mark text as data: enclose it in tags that the text itself cannot close.

    The tags carry a nonce derived from the text by SHA-256, so that an author would have to find a text that contains
    64 bits of its own hash to write a closing tag. Unlike a random nonce this leaves prompts reproducible: equal texts
    give equal prompts, which prompt caches, node caches and seeded runs rely on.

    Args:
        text: What must not be taken for instructions.
        tag: What the text is, in one word.
    """
    nonce = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"<{tag} {nonce}>\n{text}\n</{tag} {nonce}>"


_NOTHING = frozenset(
    (
        "none|nothing|n/a|na|nil|empty|no context|not applicable|no relevant context|no unbiased context|none provided|"
        "no question|none given|-|—|–|…|...|无|没有|空|暂无|不适用|无相关内容|没有相关内容"
    ).split("|")
)
