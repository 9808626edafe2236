"""The command `correction-graphs templates`: what there is, how to make one's own, and whether it is in order."""

from __future__ import annotations

import argparse
import difflib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from correction_graphs import __version__
from correction_graphs.cli_output import reason, say, say_json
from correction_graphs.errors import TemplateError
from correction_graphs.prompts import (
    ROLES,
    Template,
    examine_template,
    list_templates,
    read_template,
    template_files,
)
from correction_graphs.yaml_places import Fault

_SUFFIXES = (".yaml", ".yml")  # by which `template="…"` tells a file from a name


def list_them(options: argparse.Namespace) -> int:
    """Print what comes with the package; returns the exit status."""
    templates = list_templates(options.method)
    if options.json:
        say_json({"version": __version__, "templates": [_described(template) for template in templates]})
        return 0
    rows = [(f"{each.name}@{each.language}", each.method, each.version, each.description) for each in templates]
    titled = [("name", "method", "version", "description"), *rows]
    widths = [max(len(row[column]) for row in titled) for column in range(3)]
    for row in titled:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        say("  ".join([*cells, row[3]]))
    return 0


def show(options: argparse.Namespace) -> int:
    """Print the file of a template as it is; returns the exit status."""
    say(_file_of(options.name, options.method).read_text(encoding="utf-8"), end="")
    return 0


def copy(options: argparse.Namespace) -> int:
    """Copy the file of a template, and tell what to do with it; returns the exit status."""
    source = _file_of(options.name, options.method)
    content = source.read_bytes()
    target = Path(options.file or source.name)
    if target.is_dir():
        target /= source.name
    if target.suffix.lower() not in _SUFFIXES:
        raise TemplateError(f"the file is {str(target)!r}; give one that ends in .yaml, or it will be taken for a name")
    try:
        with target.open("wb" if options.force else "xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise TemplateError(f"{str(target)!r} exists; give another file, or --force to overwrite it") from error
    except (OSError, ValueError) as error:
        raise TemplateError(f"{str(target)!r} cannot be written: {reason(error)}") from error
    template = read_template(target)
    say(f"{template} is now in {target}")
    say("1. Edit it. Give it a `name` and `version` of its own: results record them. What may stand in it:")
    say(f"   {source.parent.parent / 'README.md'}")
    say(f"2. Check it:  correction-graphs templates check {shlex.quote(str(target))}")
    say(f"3. Use it:    {_line_of_code(template, str(target))}")
    return 0


def check(options: argparse.Namespace) -> int:
    """Tell what is wrong with each file, or else what it can be used for; returns the exit status."""
    found = [(file, _examined(Path(file), options.method)) for file in options.files]
    if options.json:
        say_json({"version": __version__, "files": [_report(file, outcome) for file, outcome in found]})
    else:
        for file, outcome in found:
            for line in _lines(file, outcome):
                say(line)
    return int(any(not isinstance(outcome, Checked) for _, outcome in found))


# Finding


def _file_of(name: str, method: str | None) -> Path:
    """Return the file of a template that comes with the package; English where its name says no language."""
    plain = name.removesuffix("@en")
    files = {each: template_files(each) for each in ([method] if method else ROLES)}
    having = [each for each in files if plain in files[each]]
    if len(having) > 1:
        choices = " or ".join(f"--method {each}" for each in having)
        raise TemplateError(f"there are {len(having)} templates {name!r}; say which: {choices}")
    if having:
        return files[having[0]][plain]
    known = sorted({known for each in files.values() for known in each})
    close = difflib.get_close_matches(plain.lower(), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    where = f" for {method!r}" if method else ""
    raise TemplateError(f"there is no template {name!r}{where}{hint} Known: {', '.join(map(repr, known))}")


def _line_of_code(template: Template, path: str) -> str:
    if template.method == "s2a":
        return f"create_s2a_graph(model, template={path!r})"
    if template.method == "rain":
        return f'ChatRain.from_gguf("model.gguf", judge={path!r})'
    if "check.grounding" in template.prompts:
        return f"GroundingChecker(retriever, model=model, template={path!r})"
    return f"create_cac_graph(model, template={path!r})"


def _described(template: Template) -> dict[str, Any]:
    fields = ("name", "language", "method", "version", "description", "source", "sha256")
    return {**{field: getattr(template, field) for field in fields}, "roles": list(template.prompts)}


# Checking


class Use(NamedTuple):
    """A setting that a template has the words for, or not.

    Attributes:
        setting: As it is written in code.
        lacks: What is to be added to the template before it can be used so; "" if nothing is.
        alone: Whether it makes a template useful without any other.
    """

    setting: str
    lacks: str = ""
    alone: bool = True


class Checked(NamedTuple):
    """A template that is in order, and what it can be used for."""

    template: Template
    uses: tuple[Use, ...]


def _examined(path: Path, method: str | None) -> Checked | tuple[Fault, ...]:
    outcome = examine_template(path, method=method)
    if not isinstance(outcome, Template):
        return outcome
    uses = tuple(uses_of(outcome))
    if all(use.lacks for use in uses if use.alone):
        wants = "; ".join(f"{use.setting} needs {use.lacks}" for use in uses if use.alone)
        return (Fault(f"nothing can use this template as it is: {wants}", 1, 1),)
    return Checked(outcome, uses)


def uses_of(template: Template) -> Iterator[Use]:
    """Yield the settings that ask for texts of a template."""
    if template.method == "rain":
        yield from _rain_uses(template)
        return
    needed = _cac_needs() if template.method == "cac" else _s2a_needs(template)
    for setting, roles in needed.items():
        lacks = ", ".join(role for role in roles if role not in template.prompts)
        yield Use(setting, lacks, alone=setting not in _ADDED)


_ADDED = {'on_exhausted="refuse"', "documents", 'mode="keep_original"', "instruct=True"}


def _cac_needs() -> Mapping[str, list[str]]:
    from correction_graphs.checkers.verdict_model import Style  # noqa: PLC0415  (`list` need not wait for LangChain)
    from correction_graphs.ranked import Ranked  # noqa: PLC0415
    from correction_graphs.strategies import STRATEGIES  # noqa: PLC0415

    return {
        **{f'style="{style}"': [f"check.{style}"] for style in get_args(Style)},
        **{f'strategy="{name}"': [role] for name, (_, role) in STRATEGIES.items()},
        'strategy="ranked"': [Ranked.role],
        'on_exhausted="refuse"': ["refuse"],
        "GroundingChecker": ["check.grounding", "note.cut", "note.nothing_found"],
    }


def _s2a_needs(template: Template) -> Mapping[str, list[str]]:
    from correction_graphs.filtering.rewriting import DOCUMENT_ROLES, Filtering, Rewrite  # noqa: PLC0415

    return {
        **{f'rewrite="{rewrite}"': Filtering(template, rewrite).roles for rewrite in get_args(Rewrite)},
        "documents": list(DOCUMENT_ROLES),
        'mode="keep_original"': ["answer.keep_original"],
        "instruct=True": ["answer.instruction"],
    }


def _rain_uses(template: Template) -> Iterator[Use]:
    from correction_graphs.rain.judge import SelfEvaluation  # noqa: PLC0415

    for examples, setting in ((True, "SelfEvaluation"), (False, "SelfEvaluation(examples=False)")):
        needed = [role for role in ROLES["rain"] if examples or role != "judge.examples"]
        lacks = ", ".join(
            [
                *(["labels"] if template.labels is None else []),
                *(role for role in needed if role not in template.prompts),
            ]
        )
        if not lacks:
            try:
                SelfEvaluation(template, examples=examples)
            except TemplateError as error:
                lacks = f"other labels: {error}"
        yield Use(setting, lacks)


def _lines(file: str, outcome: Checked | tuple[Fault, ...]) -> Iterator[str]:
    if not isinstance(outcome, Checked):
        for fault in outcome:
            place = f":{fault.line}:{fault.column}" if fault.line else ""
            yield f"{file}{place}: {fault.text}"
        return
    yield f"{file}: {outcome.template} is in order"
    for use in outcome.uses:
        yield f"  no   {use.setting}: needs {use.lacks}" if use.lacks else f"  yes  {use.setting}"


def _report(file: str, outcome: Checked | tuple[Fault, ...]) -> dict[str, Any]:
    if isinstance(outcome, Checked):
        uses = [{"setting": use.setting, "usable": not use.lacks, "lacks": use.lacks} for use in outcome.uses]
        return {"file": file, "template": _described(outcome.template), "problems": [], "uses": uses}
    problems = [{"line": fault.line, "column": fault.column, "message": fault.text} for fault in outcome]
    return {"file": file, "template": None, "problems": problems, "uses": []}
