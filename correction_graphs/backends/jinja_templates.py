"""Chat templates in Jinja, as models bring them: messages in, the text of a prompt out.

A template is somebody else's program. It runs in Jinja's sandbox, and finds there what templates are written for: the
names and filters that the tokenizers of `transformers` give them.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from correction_graphs.errors import CorrectionError, MissingExtraError, SettingsError

try:
    import jinja2.meta
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError as error:
    raise MissingExtraError("a chat template in Jinja", extra="llama") from error

Render = Callable[[list[dict[str, str]]], str]

_WITHOUT_TOOLS = dict.fromkeys(("tools", "tool_choice", "functions", "function_call"))
_SPELLINGS = {"bos_token", "eos_token"}


def jinja_renderer(
    template: str, values: Mapping[str, Any], *, source: str, kind: type[CorrectionError] = SettingsError
) -> Render:
    """Return a function from messages to the prompt for the next assistant turn.

    Args:
        template: The text of the template.
        values: What it wants beside messages, such as `bos_token`.
        source: What errors call it.
        kind: What is raised if it is broken.

    Raises:
        SettingsError: If the template wants the spelling of a control token that `values` lacks; on a call, if it
            refuses the messages.
    """
    environment = _environment()
    try:
        missing = jinja2.meta.find_undeclared_variables(environment.parse(template)) & _SPELLINGS - values.keys()
        compiled = environment.from_string(template)
    except jinja2.TemplateError as error:
        raise kind(f"{source} is broken; Jinja says: {error}") from error
    if missing:
        raise SettingsError(
            f"{source} uses {sorted(missing)}; give them in `template_values`, such as {{'bos_token': '<s>'}}"
        )
    known: dict[str, Any] = {"add_generation_prompt": True, **_WITHOUT_TOOLS, **values}

    def render(messages: list[dict[str, str]]) -> str:
        try:
            return compiled.render({**known, "messages": messages})
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            roles = [message["role"] for message in messages]
            raise SettingsError(f"{source} refuses messages in the roles {roles}: {error}") from error

    return render


class _GenerationTag(Extension):
    """`{% generation %}`, which marks what the assistant wrote for training; what is inside is rendered as usual."""

    tags = {"generation"}  # noqa: RUF012  (as Jinja wants it)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationTag]
    )
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    environment.filters["tojson"] = _json  # Jinja's own escapes for HTML
    return environment


def _refuse(reason: str) -> NoReturn:
    raise jinja2.TemplateError(reason)


def _now(form: str) -> str:
    return dt.datetime.now().astimezone().strftime(form)


def _json(value: Any, **form: Any) -> str:
    return json.dumps(value, **{"ensure_ascii": False, **form})
