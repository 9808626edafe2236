"""YAML in which every scalar is text, and whose nodes know their lines: what is wrong with a file, and where."""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml


class Fault(NamedTuple):
    """Something that is wrong with a template's file.

    Attributes:
        text: What is wrong, and what would be right.
        line: Where it is, counted from 1; None if it is about the file as a whole.
        column: Likewise.
    """

    text: str
    line: int | None = None
    column: int | None = None


class FaultyError(Exception):
    """A file cannot be used; keeps all that is wrong with it."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        super().__init__(*faults)


class _Loader(yaml.SafeLoader):
    """Composes YAML in which everything is written out, and nothing asks to be constructed."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refused("aliases are not allowed in a template; write the text out", event)
        if getattr(event, "tag", None) is not None:
            raise _refused("tags are not allowed in a template; put the text in quotes", event)
        return super().compose_node(parent, index)


def _refused(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def parsed(text: str) -> tuple[yaml.Node | None, Any]:
    """Return the nodes of a document, which know their places, and the same as texts, lists and dicts."""
    try:
        node = yaml.compose(text, _Loader)
        return node, None if node is None else _plain(node)
    except yaml.MarkedYAMLError as error:
        problem = ": ".join(part for part in (error.context, error.problem) if part)
        raise FaultyError(fault_at(problem, error.problem_mark)) from error
    except yaml.reader.ReaderError as error:
        problem = f"the character {chr(error.character)!r} is not allowed; write it as an escape in double quotes"
        raise FaultyError(fault_after(text[: error.position], problem)) from error
    except RecursionError as error:
        raise FaultyError(Fault("nested too deeply to be a template")) from error
    except (ValueError, OverflowError) as error:  # PyYAML passes on what `chr` says of an escape
        raise FaultyError(Fault("an escape such as \\U00110000 is beyond the last character, U+10FFFF")) from error


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if not isinstance(node, yaml.MappingNode):
        return node.value
    content: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _refused("a key must be text; a value that starts with a brace needs quotes", key)
        if node.flow_style and isinstance(value, yaml.ScalarNode) and value.value == "" and value.style is None:
            raise _refused(f"{{{key.value}}} is a mapping in YAML; a value that starts with a brace needs quotes", node)
        if key.value in content:
            raise _refused(f"the key {key.value!r} is given twice", key)
        content[key.value] = _plain(value)
    return content


def mark_of(path: str, node: yaml.Node, nearest: yaml.Mark | None = None) -> yaml.Mark | None:
    """Return where the key of a dotted path stands, or else the nearest key above it."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if path == key.value or path.startswith(f"{key.value}."):
            return mark_of(path[len(key.value) + 1 :], value, key.start_mark)
    return nearest or node.start_mark


def fault_at(text: str, mark: yaml.Mark | None) -> Fault:
    """Return a fault at a mark, by default at the beginning."""
    return Fault(text, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1)


def fault_after(before: str, text: str) -> Fault:
    """Return a fault right after what is in order."""
    return Fault(text, before.count("\n") + 1, len(before) - before.rfind("\n"))
