"""Chat messages as the tokens of a prompt, in which no message can end its turn or forge another.

Where a message spells out a control token, such as `<|im_end|>`, that spelling is held back while the chat template is
rendered, and then tokenized as plain text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from correction_graphs.errors import SettingsError

# What is held back stands in the rendered prompt as its number between two private-use characters.
_OPEN, _CLOSE = "\ue000", "\ue001"
_HELD = re.compile(f"{_OPEN}(\\d+){_CLOSE}")

LIKE_CONTROL = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,20}\]")
"""What a control token may be spelled like (`<|im_end|>`, `</s>`, `<end_of_turn>`, `[INST]`), where nobody tells."""


def any_of(spellings: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that matches each of some spellings, the longest that fits."""
    texts = sorted({text for text in spellings if text}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, texts)) or r"(?!)")


def prompt_tokens(
    messages: Sequence[Mapping[str, str]],
    *,
    render: Callable[[list[dict[str, str]]], str],
    tokenize: Callable[..., list[int]],
    control: re.Pattern[str],
) -> list[int]:
    """Turn messages into tokens; what `control` matches in their contents stays plain text.

    Args:
        messages: Dicts with `role` and `content`.
        render: The chat template: from messages to the text of a prompt.
        tokenize: From text to tokens; with `special=True`, it recognizes control tokens.
        control: Matches the spellings of control tokens.

    Raises:
        SettingsError: If the template does not return text.
    """
    held: list[str] = []

    def hold(match: re.Match[str]) -> str:
        held.append(match[0])
        return f"{_OPEN}{len(held) - 1}{_CLOSE}"

    special = re.compile(f"{control.pattern}|{_OPEN}")
    prompt = render([{**message, "content": special.sub(hold, message["content"])} for message in messages])
    if not isinstance(prompt, str):
        raise SettingsError(
            f"the chat template returned {prompt!r:.80}, expected the prompt as text; for `apply_chat_template` of "
            "transformers, give `tokenize=False, add_generation_prompt=True`"
        )
    tokens: list[int] = []
    for at, part in enumerate(_HELD.split(prompt)):  # every second part is a number
        tokens += tokenize(held[int(part)]) if at % 2 else tokenize(part, special=True)
    return tokens
