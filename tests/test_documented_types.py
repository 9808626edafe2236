"""The code in README and docs holds up to `mypy --strict`, as a reader's own would who copies it."""

from __future__ import annotations

import ast
import builtins
import subprocess
import sys
from pathlib import Path

import pytest
from test_documented_code import ROOT, TEXTS, blocks

pytestmark = pytest.mark.slow


def unbound(tree: ast.Module) -> list[str]:
    """Names that a block uses and does not make: a reader's own variables, or those of a block before it."""
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return sorted(used - bound - set(dir(builtins)))


def test_names_that_a_block_does_not_make_are_found():
    tree = ast.parse("import os\nfor a in b:\n    print(os.sep, a, c)\ndef f(d): return lambda e: d + e + g")
    assert unbound(tree) == ["b", "c", "g"]


def checked(folder: Path, codes: dict[str, str]) -> str:
    for name, code in codes.items():
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    settings = folder / "mypy.ini"
    settings.write_text(
        "[mypy]\nstrict = True\nplugins = pydantic.mypy\nignore_missing_imports = True\n", encoding="utf-8"
    )
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", settings, "--cache-dir", ROOT / ".mypy_cache" / "docs", folder],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "" if run.returncode == 0 else run.stdout + run.stderr


def test_documented_code_is_typed(tmp_path):
    codes = {}
    for path in TEXTS:
        for number, block in enumerate(blocks(path), 1):
            names = "".join(f"{name}: Any = ...\n" for name in unbound(ast.parse(block)))
            header = "from typing import Any\n" if names and "Any" not in block else ""
            stem = str(path.relative_to(ROOT).with_suffix("")).replace("/", "_").replace("-", "_")
            codes[f"{stem}_{number}"] = f"{header}{names}{block}"
    assert len(codes) >= 40
    assert checked(tmp_path, codes) == ""


def test_a_wrong_type_is_found(tmp_path):
    wrong = "from correction_graphs import create_cac_graph\n\ncreate_cac_graph('openai:x', max_rounds='two')\n"
    assert 'incompatible type "str"; expected "int"' in checked(tmp_path, {"wrong": wrong})
