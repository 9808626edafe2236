"""Byte-pair tokens and the form of a dialogue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

CONTROLS = ("<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def trained(texts: Iterable[str], size: int) -> Tokenizer:
    """Return a byte-level tokenizer for texts."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.train_from_iterator(
        texts,
        BpeTrainer(
            vocab_size=size,
            special_tokens=list(CONTROLS),
            initial_alphabet=ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def encoded(tokenizer: Tokenizer, messages: Sequence[tuple[str, str]]) -> tuple[list[int], int]:
    """Return a dialogue's tokens, and how many stand before the last message's text."""
    end = tokenizer.token_to_id("<|end|>")
    tokens: list[int] = []
    start = 0
    for role, text in messages:
        tokens.append(tokenizer.token_to_id(f"<|{role}|>"))
        start = len(tokens)
        tokens += [*tokenizer.encode(text, add_special_tokens=False).ids, end]
    return tokens, start
