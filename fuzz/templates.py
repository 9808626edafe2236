"""The template loader: any bytes give a template that works, or a `TemplateError` that tells the place.

An input is a file.
"""

# ruff: noqa: E501 -- a folder of scripts

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml
from common import require

from correction_graphs.errors import TemplateError
from correction_graphs.prompts import ROLES, Template, examine_template, load_template, parse_template, read_template

MODULES = ["correction_graphs.prompts", "correction_graphs.yaml_places"]

WORDS = [
    "name: ", "version: ", "language: ", "method: ", "labels:\n", "  pass: ", "  fail: ", "  verdict: ", "  critique: ",
    "prompts:\n", "  check.verdict: ", "  check:\n    verdict: ", "  revise:\n    self: ", "cac", "s2a", "rain", "en",
    "pt-BR", "{critique}", "{question}", "{answer}", "{{", "}}", "{", "}", "|\n", ">-\n", "[", "]", "&a ", "*a", "!!str ",
    "!x ", "? ", "<<: ", "---\n", "...\n", "%YAML 1.1\n", "#", "'", '"', "\\u0000", "\ufeff", "\t", "\r\n", "- ", "null",
    "\u2028", "\x85", "\x00",
]  # fmt: skip

_HOSTILE = "{question} {{x}} {nothing} \\1 \x00"


def check(data: bytes) -> None:
    """Read the file in each way there is, and use what is read."""
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(data)
        file.flush()
        path = Path(file.name)
        found = examine_template(path)
        try:
            template = read_template(path)
        except TemplateError as error:
            require(not isinstance(found, Template), "in order, and refused", data)
            require(str(error), "an error without words", data)
            _must_be_in(data, found)
            return
        require(found == template, "read in two ways", data)
        for method in ROLES:
            _must_fit(path, method, template)
    _must_fill(template)
    written = yaml.safe_dump(template.model_dump(mode="json", by_alias=True, exclude_none=True), allow_unicode=True)
    again = parse_template(written)
    require(again == template, "written and read again, it differs", data, written)
    require(again.sha256 == template.sha256, "written and read again, its hash differs", data)
    require(hash(again) == hash(template) and str(template), "no hash", data)


def _must_be_in(data: bytes, faults: object) -> None:
    require(isinstance(faults, tuple) and faults, "refused, and nothing found", data)
    lines = data.count(b"\n") + data.count(b"\r") + data.count(b"\xe2\x80") + data.count(b"\xc2\x85") + 2
    for fault in faults:  # type: ignore[attr-defined]
        require(fault.text, "a fault without words", data)
        if fault.line is not None:
            require(
                1 <= fault.line <= lines and 1 <= fault.column <= len(data) + 2, "a fault out of place", fault, data
            )


def _must_fit(path: Path, method: str, template: Template) -> None:
    try:
        load_template(path, method=method)
    except TemplateError:
        require(method != template.method, "refused for its own method", method)
    else:
        require(method == template.method, "accepted for another method", method)


def _must_fill(template: Template) -> None:
    for role, slots in template.slots.items():
        text = template.fill(role, **dict.fromkeys(slots, _HOSTILE))
        require(text.count(_HOSTILE) >= len(slots), "a value was changed", role, text)
        plain = template.fill(role, **dict.fromkeys(slots, ""))
        counted = template.prompts[role].replace("{{", "").replace("}}", "")
        require(len(plain) <= len(template.prompts[role]), "longer than its text", role)
        require(bool(slots) or "{" not in counted, "a slot that is none", role)


def seeds() -> Iterator[bytes]:
    """Yield the templates that come with the package, and each cut to its beginning."""
    for path in sorted((Path(__file__).parent.parent / "templates").glob("*/*.yaml")):
        data = path.read_bytes()
        yield data
        yield data[: len(data) // 3]
