"""Prompt templates: the words sent to a model, kept in files that users can read, copy and change.

A template is one YAML file for one method in one language: a text for each role of the method, and the labels a verdict
is read from. `{slot}` in a text is where a value goes; `{{` and `}}` stand for literal braces. Values are inserted
literally, in one pass: nothing in them is expanded, whatever they contain. What a template lacks is found when it is
loaded or when a graph is built, not in the middle of a run.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from correction_graphs.errors import TemplateError
from correction_graphs.results import TemplateInfo
from correction_graphs.yaml_places import Fault, FaultyError, fault_after, fault_at, mark_of, parsed

_TOKEN = re.compile(r"(?P<open>\{\{)|(?P<close>\}\})|\{(?P<slot>[a-z][a-z0-9_]*)\}|(?P<stray>[{}])")
_NAME = re.compile(r"\w[\w.-]*")
# BCP 47 without extensions: language, script, region, variants, private use.
_LANGUAGE = re.compile(
    r"[a-z]{2,3}(-[a-z]{4})?(-([a-z]{2}|[0-9]{3}))?(-([a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*(-x(-[a-z0-9]{1,8})+)?",
    re.IGNORECASE,
)


# --- What each method needs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Role:
    """What the text of one role has to hold.

    Attributes:
        required: Slots that the text must have.
        optional: Slots that it may have.
        states_labels: Whether it tells the model to end in a verdict, and so must name the field and the labels.
    """

    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    states_labels: bool = False

    @property
    def allowed(self) -> frozenset[str]:
        """All slots that the text may have."""
        return self.required | self.optional


# A check comes right after the answer, in the same conversation, so it need not repeat question or answer.
_CHECKED = frozenset({"question", "answer"})

ROLES: Mapping[str, Mapping[str, Role]] = {
    "cac": {
        "check.verdict": Role(optional=_CHECKED, states_labels=True),
        "check.natural_language": Role(optional=_CHECKED),
        "check.chain_of_thought": Role(optional=_CHECKED, states_labels=True),
        "check.grounding": Role(
            required=frozenset({"documents", "answer"}), optional=frozenset({"question"}), states_labels=True
        ),
        "note.cut": Role(),
        "note.nothing_found": Role(),
        "revise.self": Role(required=frozenset({"critique", "question"})),
        "revise.self_instruct": Role(required=frozenset({"critique"})),
        "revise.fresh": Role(required=frozenset({"critique", "question"})),
        "revise.ranked": Role(required=frozenset({"answers", "critique", "question"})),
        "refuse": Role(),  # not a prompt: what is said in the place of an answer
    },
    "rain": {
        "judge.instruction": Role(),
        "judge.examples": Role(),
        "judge.question": Role(required=frozenset({"first", "second"})),
        "judge.answer": Role(),
        "judge.label.first": Role(optional=frozenset({"first"})),
        "judge.label.second": Role(optional=frozenset({"second"})),
        "turn.system": Role(),
        "turn.user": Role(),
        "turn.assistant": Role(),
    },
    "s2a": {
        "filter.sections": Role(required=frozenset({"text", "context_label", "question_label"})),
        "filter.single": Role(required=frozenset({"text"})),
        "filter.document": Role(required=frozenset({"document", "question", "nothing_label"})),
        "filter.retry": Role(required=frozenset({"problems"})),
        "label.context": Role(),  # a label on each line: the first is asked for, the others are understood
        "label.question": Role(),
        "label.nothing": Role(),
        "problem.labels": Role(required=frozenset({"context_label", "question_label"})),
        "problem.empty": Role(),
        "problem.cut": Role(),
        "problem.added": Role(required=frozenset({"items"})),
        "problem.lost": Role(required=frozenset({"items"})),
        "problem.question": Role(required=frozenset({"items"})),
        "problem.negation": Role(required=frozenset({"items"})),
        "problem.longer": Role(),
        "answer.instruction": Role(),
        "answer.keep_original": Role(required=frozenset({"original", "filtered"})),
        "answer.documents": Role(required=frozenset({"documents", "question"})),
        "clean.markers": Role(),  # a word or phrase on each line, whose absence makes a text clean
    },
}
"""The roles a template of each method may have."""


# --- The data -----------------------------------------------------------------------------------------------------


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _one_line(label: str) -> str:
    if len(label.splitlines()) != 1:
        raise ValueError(f"{label!r} must be one line of text" if label else "a label must not be empty")
    return label


_Words = Annotated[
    tuple[Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_one_line)], ...],
    BeforeValidator(_as_tuple),
    Field(min_length=1),
]


class Labels(BaseModel):
    """The words a verdict is read from. A single word may be given where a tuple is expected.

    Attributes:
        passing: Labels of an answer that may stay. Written `pass` in YAML.
        failing: Labels of an answer that must be corrected. Written `fail` in YAML.
        verdict: Field names that introduce the verdict; the first is the one the prompts ask for.
        critique: Field names that introduce the feedback, likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    passing: _Words = Field(alias="pass")
    failing: _Words = Field(alias="fail")
    verdict: _Words = ("Verdict",)
    critique: _Words = ("Critique",)

    @model_validator(mode="after")
    def _each_word_means_one_thing(self) -> Self:
        pairs = {"pass and fail": (self.passing, self.failing), "verdict and critique": (self.verdict, self.critique)}
        for names, (one, other) in pairs.items():
            if shared := _folded(one) & _folded(other):
                raise ValueError(f"{names} share {_quoted(sorted(shared))}; each word must mean one of them")
        return self


class Template(BaseModel):
    """The prompts of one method, in one language, for one purpose.

    Attributes:
        name: What users call it, such as "bias".
        version: Set by its author. `sha256` tells apart what a version number does not.
        language: BCP 47 tag of the language the prompts are in, such as "en", "zh" or "pt-BR".
        method: Whose roles it fills; see `ROLES`.
        description: What it is for, in a sentence.
        source: Where the idea is from.
        labels: The words a verdict is read from; needed by the roles that ask for one.
        prompts: The text of each role, by names such as "check.verdict". Nested mappings are flattened.

    Example:
        ```python
        from correction_graphs import load_template

        template = load_template("bias")
        assert template.labels.failing == ("biased",)
        changed = template.model_copy(update={"name": "my-bias"})
        ```
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    language: str
    method: str
    description: Annotated[str, StringConstraints(strip_whitespace=True)] = ""
    source: Annotated[str, StringConstraints(strip_whitespace=True)] = ""
    labels: Labels | None = None
    prompts: Mapping[str, Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]]

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name; use letters, digits, '_', '-' and '.' only")
        return name

    @field_validator("language")
    @classmethod
    def _is_a_language(cls, language: str) -> str:
        if not _LANGUAGE.fullmatch(language):
            raise ValueError(f"{language!r} is not a BCP 47 language tag such as 'en', 'zh' or 'pt-BR'")
        return language

    @field_validator("method")
    @classmethod
    def _is_known(cls, method: str) -> str:
        if method not in ROLES:
            raise ValueError(f"{method!r} is not a method; known: {_quoted(ROLES)}")
        return method

    @field_validator("prompts", mode="before")
    @classmethod
    def _flat(cls, prompts: object) -> object:
        if not isinstance(prompts, Mapping):
            return prompts
        flat: dict[str, object] = {}
        for role, text in _leaves(prompts):
            if role in flat:
                raise ValueError(f"role {role!r} is given twice")
            flat[role] = text
        return flat

    @model_validator(mode="after")
    def _fits_its_method(self) -> Self:
        if problems := tuple(_role_problems(self)):
            raise _MisfitError(problems)
        return self

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __str__(self) -> str:
        return f"template {self.name!r} ({self.method}, {self.language}, version {self.version})"

    @property
    def sha256(self) -> str:
        """Hash of the content: the same for two files that differ in formatting only."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode("ascii")).hexdigest()

    @property
    def info(self) -> TemplateInfo:
        """What a result records about the template."""
        return TemplateInfo(name=self.name, version=self.version, language=self.language, sha256=self.sha256)

    @property
    def slots(self) -> dict[str, frozenset[str]]:
        """The slots of each role."""
        return {role: _slots(text) for role, text in self.prompts.items()}

    def require(self, *roles: str) -> None:
        """Check that the template has these roles. Called when a graph is built.

        Raises:
            TemplateError: If a role is missing.
        """
        if missing := [role for role in roles if role not in self.prompts]:
            raise TemplateError(
                f"{self} has no role {_quoted(missing)}; it has {_quoted(self.prompts)}. "
                "Add the missing text under `prompts`, or choose a setting that uses a role it has."
            )

    def fill(self, role: str, /, **values: str) -> str:
        """Return the text of a role with a value in the place of each slot.

        All values are inserted in one pass and are not looked at again, so braces in them mean nothing.

        Args:
            role: Such as "check.verdict".
            **values: One text for each slot of the role, no more and no fewer.

        Raises:
            TemplateError: If the role is missing, or the values are not those its slots need.
        """
        self.require(role)
        text = self.prompts[role]
        slots = _slots(text)
        if slots != values.keys():
            raise TemplateError(
                f"role {role!r} of {self} has the slots {_braced(slots)}, but was given {_braced(values)}"
            )
        if wrong := [name for name, value in values.items() if not isinstance(value, str)]:
            raise TemplateError(f"the values for {_braced(wrong)} of role {role!r} must be text (str)")
        return _TOKEN.sub(lambda token: _written(token, values), text)


# --- Loading ------------------------------------------------------------------------------------------------------


def load_template(name_or_path: str | Path | Template, *, method: str = "cac") -> Template:
    """Return a template by its name or from a file.

    Args:
        name_or_path: The name of a template that comes with the package, such as `"bias"` (English) or `"bias@zh"`; or
            a file, given as a `Path` or as a text that ends in `.yaml` or `.yml` or contains a path separator; or a
            `Template`, which is returned as it is. Files are read anew at each call.
        method: The method the template must be for.

    Raises:
        TemplateError: If there is no such template, it cannot be read, or it is not one for this method.

    Example:
        ```python
        from correction_graphs import load_template

        template = load_template("bias")
        assert template.labels.passing == ("unbiased",)
        assert template.slots["revise.self"] == {"critique", "question"}
        ```
    """
    if isinstance(name_or_path, Template):
        template = name_or_path
    elif _is_path(name_or_path):
        template = read_template(Path(name_or_path))
    else:
        template = read_template(_shipped_file(str(name_or_path), method))
    if template.method != method:
        raise TemplateError(f"{template} is for the method {template.method!r}, but one for {method!r} is needed")
    return template


def list_templates(method: str | None = None) -> list[Template]:
    """Return the templates that come with the package, sorted by method, name and language.

    Args:
        method: Only those of this method.

    Raises:
        TemplateError: If there is no such method, or a template does not load.
    """
    methods = ROLES if method is None else [method]
    templates = [read_template(path) for each in methods for path in template_files(each).values()]
    return sorted(templates, key=lambda template: (template.method, template.name, template.language))


def read_template(path: Path) -> Template:
    """Read a template, of whatever method, from a file.

    Raises:
        TemplateError: If the file cannot be read or is not a template; says in which line, where that is known.
    """
    data = _bytes_of(path)
    with _faults_as_error(str(path)):
        return _template_in(_decoded(data))


def parse_template(text: str, *, where: str = "template") -> Template:
    """Read a template from YAML.

    Every scalar is text, so that `version: 1.0` is "1.0", `language: no` is Norwegian and `pass: yes` is "yes". Keys
    that occur twice, aliases and tags are refused.

    Args:
        text: The YAML document.
        where: What to call it in errors, such as its path.

    Raises:
        TemplateError: If it is not a template; says in which line, where that is known.
    """
    with _faults_as_error(where):
        return _template_in(text)


def examine_template(path: Path, *, method: str | None = None) -> Template | tuple[Fault, ...]:
    """Read a template from a file, or return all that is wrong with it, from top to bottom.

    Args:
        path: The file.
        method: The method the template must be for; None for any.
    """
    try:
        return _template_in(_decoded(_bytes_of(path)), method)
    except FaultyError as found:
        return found.faults
    except TemplateError as error:
        return (Fault(str(error)),)


def _template_in(text: str, method: str | None = None) -> Template:
    node, content = parsed(text)
    if node is None or not isinstance(content, dict):
        found = "nothing" if node is None else "a list" if isinstance(content, list) else "text"
        problem = f"a template is a mapping of {_quoted(Template.model_fields)}, but this is {found}"
        raise FaultyError(fault_at(problem, node.start_mark if node else None))
    try:
        template = Template.model_validate(content)
    except ValidationError as error:
        problems = _all_problems(content, error)
        faults = [fault_at(f"{path}: {problem}", mark_of(path, node)) for path, problem in problems]
        raise FaultyError(*sorted(faults, key=lambda fault: fault[1:])) from error
    if method not in (None, template.method):
        problem = f"method: {template.method!r}, but a template for {method!r} is needed"
        raise FaultyError(fault_at(problem, mark_of("method", node)))
    return template


@contextmanager
def _faults_as_error(where: str) -> Iterator[None]:
    try:
        yield
    except FaultyError as found:
        at = [f", line {fault.line}, column {fault.column}" if fault.line else "" for fault in found.faults]
        told = [f"{where}{place}: {fault.text}" for place, fault in zip(at, found.faults, strict=True)]
        raise TemplateError("\n".join(told)) from found


# --- Files --------------------------------------------------------------------------------------------------------


def _is_path(name_or_path: object) -> bool:
    if isinstance(name_or_path, Path):
        return True
    text = str(name_or_path)
    return text.lower().endswith((".yaml", ".yml")) or "/" in text or os.sep in text


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise TemplateError(f"there is no template file {str(path)!r} (looked for in {str(Path.cwd())!r})") from error
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise TemplateError(f"the template file {str(path)!r} cannot be read: {told}") from error


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        raise FaultyError(fault_after(before, f"not UTF-8 ({error.reason}); save the file as UTF-8")) from error


def template_files(method: str) -> dict[str, Path]:
    """Return the files that come with the package by name, such as "bias" and "bias@zh".

    Raises:
        TemplateError: If there is no such method.
    """
    if method not in ROLES:
        raise TemplateError(f"there are no templates for {method!r}; the methods are {_quoted(ROLES)}")
    folder = templates_folder() / method
    return {path.stem.replace(".", "@", 1): path for path in sorted(folder.glob("*.yaml"))}


def templates_folder() -> Path:
    """Return where the templates are that come with the package: inside it once installed, beside it in a clone."""
    package = Path(__file__).parent
    installed, checkout = package / "templates", package.parent / "templates"
    return installed if installed.is_dir() else checkout


def _shipped_file(name: str, method: str) -> Path:
    known = template_files(method)
    path = known.get(name.removesuffix("@en"))
    if path is None:
        close = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise TemplateError(
            f"there is no template {name!r} for {method!r}{hint} Known: {_quoted(known)}. "
            "To use a file of your own, give its path, such as 'my_template.yaml'."
        )
    return path


# --- Problems -----------------------------------------------------------------------------------------------------


class _Problem(NamedTuple):
    path: str
    text: str


class _MisfitError(ValueError):
    """The texts do not fit their roles; keeps each problem with its place."""

    def __init__(self, problems: tuple[_Problem, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{path}: {text}" for path, text in problems))


_PLAIN_WORDS = {
    "missing": "missing",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "mapping_type": "must be a mapping",
    "model_type": "must be a mapping",
    "tuple_type": "must be a text or a list of texts",
}


def _problems(error: ValidationError) -> Iterator[_Problem]:
    """Say in plain words what pydantic found."""
    for found in error.errors(include_url=False):
        path = ".".join(str(part) for part in found["loc"])
        cause = found.get("ctx", {}).get("error")
        if isinstance(cause, _MisfitError):
            yield from cause.problems
        elif found["type"] == "extra_forbidden":
            fields = ("pass", "fail", "verdict", "critique") if path.startswith("labels.") else Template.model_fields
            yield _Problem(path, f"unknown field; the fields are {_quoted(fields)}")
        else:
            yield _Problem(path, str(cause) if cause else _PLAIN_WORDS.get(found["type"], found["msg"]))


def _all_problems(content: Mapping[str, Any], error: ValidationError) -> list[_Problem]:
    """Return what is wrong with a template's fields, and also, if they hide it, what is wrong with its texts."""
    found = list(_problems(error))
    about_texts = {name: content[name] for name in ("method", "labels", "prompts") if name in content}
    try:
        Template.model_validate({"name": "any", "version": "1", "language": "en", **about_texts})
    except ValidationError as hidden:
        found += _problems(hidden)
    return list(dict.fromkeys(found))


def _role_problems(template: Template) -> Iterator[_Problem]:
    roles = ROLES[template.method]
    asking = [name for name in template.prompts if name in roles and roles[name].states_labels]
    if asking and template.labels is None:
        yield _Problem("labels", f"missing, but {_quoted(asking)} must tell the model which labels to end with")
    for name, text in template.prompts.items():
        path = f"prompts.{name}"
        if name in roles:
            yield from (_Problem(path, problem) for problem in _text_problems(text, roles[name], template.labels))
        else:
            yield _Problem(path, f"unknown role; the roles of {template.method!r} are {_quoted(roles)}")


def _text_problems(text: str, role: Role, labels: Labels | None) -> Iterator[str]:
    if stray := next((token for token in _TOKEN.finditer(text) if token["stray"]), None):
        near = text[max(stray.start() - 15, 0) : stray.end() + 15]
        yield f"a single {stray[0]!r} in {near!r}; a slot is a lower-case name in braces, a literal brace is doubled"
    slots = _slots(text)
    if unknown := slots - role.allowed:
        yield f"unknown slot {_braced(unknown)}; allowed here: {_braced(role.allowed)}"
    if missing := role.required - slots:
        yield f"the slot {_braced(missing)} is missing; the text must show it to the model"
    if role.states_labels and labels is not None and (unstated := list(_unstated(text, labels))):
        yield f"the text must state {' and '.join(unstated)}, written as in `labels`"


def _unstated(text: str, labels: Labels) -> Iterator[str]:
    """Yield what a text should say about the verdict and does not."""
    words = _TOKEN.sub(" ", text)
    if labels.verdict[0] not in words:
        yield f"the verdict field {labels.verdict[0]!r}"
    # Longest first, since a label inside a longer one is not a mention of it: "unbiased" does not state "biased".
    every = sorted((*labels.passing, *labels.failing), key=len, reverse=True)
    stated = set(re.findall("|".join(whole_word(label) for label in every), words))
    if stated.isdisjoint(labels.passing):
        yield f"a passing label ({_quoted(labels.passing)})"
    if stated.isdisjoint(labels.failing):
        yield f"a failing label ({_quoted(labels.failing)})"


def whole_word(word: str) -> str:
    """Return a pattern for a whole word; scripts that put no spaces between words have no such edges."""
    before = r"(?<![A-Za-z0-9_])" if re.match(r"\w", word, re.ASCII) else ""
    after = r"(?![A-Za-z0-9_])" if re.match(r"\w", word[-1], re.ASCII) else ""
    return f"{before}{re.escape(word)}{after}"


# --- Texts --------------------------------------------------------------------------------------------------------


def _slots(text: str) -> frozenset[str]:
    return frozenset(token["slot"] for token in _TOKEN.finditer(text) if token["slot"])


def _written(token: re.Match[str], values: Mapping[str, str]) -> str:
    """Return what stands for a brace token in the end: the value of a slot, or one brace for two."""
    return values[token["slot"]] if token["slot"] else token[0][0]


def _leaves(prompts: Mapping[Any, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in prompts.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _folded(words: Iterable[str]) -> set[str]:
    return {word.casefold() for word in words}


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(repr(word) for word in words)


def _braced(slots: Iterable[str]) -> str:
    return ", ".join(f"{{{slot}}}" for slot in sorted(slots)) or "none"
