"""What `import correction_graphs` offers, and what it costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import correction_graphs

PUBLIC = [
    "Budget",
    "CaCMiddleware",
    "CacResult",
    "ChatLlama",
    "ChatRain",
    "CheckRequest",
    "CodeChecker",
    "CorrectionError",
    "GroundingChecker",
    "HumanChecker",
    "Jury",
    "LLMCritic",
    "RainResult",
    "RainSettings",
    "Round",
    "S2AMiddleware",
    "S2AResult",
    "Template",
    "Usage",
    "Verdict",
    "__version__",
    "as_checker",
    "build_cac_graph",
    "build_rain_graph",
    "build_s2a_graph",
    "create_cac_graph",
    "create_rain_graph",
    "create_s2a_graph",
    "load_template",
]

HEAVY = ("langgraph", "langchain", "llama_cpp", "numpy", "openai", "pydantic", "rich", "yaml")

MEASURE = """
import json, sys, time
start = time.perf_counter()
import correction_graphs
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "modules": sorted(sys.modules)}))
"""


def import_in_a_new_process(code: str = MEASURE) -> dict:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def test_the_public_names_are_few():
    assert len(correction_graphs.__all__) < 30


def test_the_public_names_are_these_and_sorted() -> None:
    assert correction_graphs.__all__ == PUBLIC
    assert sorted(PUBLIC) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_resolves_to_what_bears_that_name(name: str) -> None:
    value = getattr(correction_graphs, name)

    if name != "__version__":
        assert value.__name__ == name
        assert value.__module__ == correction_graphs._HOMES[name]


def test_a_name_is_looked_up_once() -> None:
    first = correction_graphs.Verdict

    assert vars(correction_graphs)["Verdict"] is first


def test_what_type_checkers_see_is_what_is_loaded() -> None:
    tree = ast.parse(Path(correction_graphs.__file__).read_text(encoding="utf-8"))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }

    assert seen == correction_graphs._HOMES
    assert {*seen, "__version__"} == set(PUBLIC)


def test_dir_shows_every_public_name_before_any_was_used() -> None:
    code = "import json, correction_graphs; print(json.dumps(dir(correction_graphs)))"

    listed = import_in_a_new_process(code)

    assert set(PUBLIC) <= set(listed)
    assert listed == sorted(listed)


def test_importing_the_package_is_quick_and_loads_no_dependency() -> None:
    runs = [import_in_a_new_process() for _ in range(5)]

    loaded = [name for name in runs[0]["modules"] if name.startswith(HEAVY)]
    ours = [name for name in runs[0]["modules"] if name.startswith("correction_graphs")]
    assert loaded == []
    assert ours == ["correction_graphs", "correction_graphs._version"]
    assert min(run["seconds"] for run in runs) < 0.15


def test_a_result_type_is_had_without_loading_a_graph_or_a_model() -> None:
    code = "import json, sys; from correction_graphs import Verdict; print(json.dumps(sorted(sys.modules)))"

    loaded = import_in_a_new_process(code)

    assert not [name for name in loaded if name.startswith(("langgraph", "langchain", "llama_cpp", "numpy", "openai"))]


def test_a_misspelt_name_is_answered_with_the_right_one() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'creat_cac_graph'; did you mean 'create_cac_graph'\?"):
        correction_graphs.creat_cac_graph  # noqa: B018


def test_an_unknown_name_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'zzz'; its public names are Budget, .*load_template"):
        correction_graphs.zzz  # noqa: B018


def test_a_probe_for_a_special_attribute_is_answered_shortly() -> None:
    with pytest.raises(AttributeError, match=r"^module 'correction_graphs' has no attribute '__wrapped__'$"):
        correction_graphs.__wrapped__  # noqa: B018


def test_a_submodule_is_imported_by_its_own_name() -> None:
    code = "import json; from correction_graphs import errors; print(json.dumps(errors.__name__))"

    assert import_in_a_new_process(code) == "correction_graphs.errors"


def test_every_public_name_has_an_example():
    names = set(correction_graphs.__all__) - {"__version__"}
    assert {name for name in names if "```python" not in getattr(correction_graphs, name).__doc__} == set()
