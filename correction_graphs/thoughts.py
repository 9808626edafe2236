"""Where a reasoning model thinks in its reply, and where it speaks.

In square brackets only `[think]` is a mark of thought: "[reasoning]" and the like stand in logs and notes that people
write about.
"""

from __future__ import annotations

import re

_TAG = re.compile(r"(?:<|◁|\[(?=/?think\]))(/?)(?:think|thinking|thought|thoughts|reasoning)(?:>|▷|\])", re.IGNORECASE)


def without_thoughts(text: str, original: str = "") -> str:
    """Return what a reply says after its thoughts.

    A thought ends at the first closing mark, so that it may speak of opening ones. Where one closes that never opened,
    it was opened in the prompt, and all before it was thought. One that never ends hides the rest of the reply.

    Args:
        text: The reply.
        original: What the reply is about. A mark that stands there, and never closes in the reply, is a word of it.
    """
    kept: list[str] = []
    start = 0
    opened: re.Match[str] | None = None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            if opened is None:
                kept.append(text[start : tag.start()])
                opened = tag
            continue
        if opened is None:
            kept.clear()
        opened, start = None, tag.end()
    if opened is None:
        kept.append(text[start:])
    elif opened[0].casefold() in original.casefold():
        kept.append(text[opened.start() :])
    return "".join(kept)


def split_thoughts(text: str) -> tuple[str | None, list[str]]:
    """Return a reply without its thoughts, and the thoughts; None for the reply if one never ends.

    Thoughts may be nested: where a verdict is at stake, text that may be inside one is not taken for the reply.
    """
    kept: list[str] = []
    thoughts: list[str] = []
    depth = start = 0
    for tag in _TAG.finditer(text):
        closes = bool(tag[1])
        if depth == 0 and closes:  # opened in the prompt, so all of this was reasoning
            thoughts += [*kept, text[start : tag.start()]]
            kept.clear()
        elif depth == 0 or (depth == 1 and closes):
            (thoughts if closes else kept).append(text[start : tag.start()])
        else:
            depth += -1 if closes else 1
            continue
        depth = 0 if closes else 1
        start = tag.end()
    kept.append(text[start:])
    return None if depth else "\n".join(kept), [thought.strip() for thought in thoughts if thought.strip()]
