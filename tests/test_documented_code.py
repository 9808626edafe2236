"""The code in README, docs and docstrings: every block compiles, its imports exist, and what needs no model runs."""

from __future__ import annotations

import ast
import importlib
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("templates/*.md"))]
MODULES = sorted(ROOT.glob("correction_graphs/**/*.py"))
NEEDS_A_MODEL = re.compile(r"openai:|\.gguf|another_model|question\)|get_sync_client")
"""What a block can only say and not do here: a key, a file, or a variable of the reader's."""


def blocks(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        nodes = [
            node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        ]
        text = "\n".join(ast.get_docstring(node) or "" for node in nodes)
    return [
        textwrap.dedent(block) for block in re.findall(r"^[ ]*```python\n(.*?)^[ ]*```", text, re.DOTALL | re.MULTILINE)
    ]


BLOCKS = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}-{number}")
    for path in [*TEXTS, *MODULES]
    for number, block in enumerate(blocks(path), 1)
]


def test_there_are_examples():
    assert len(BLOCKS) >= 8


@pytest.mark.parametrize("block", BLOCKS)
def test_documented_code_works(block, tmp_path, monkeypatch):
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
    code = "\n".join(line for line in block.splitlines() if not line.lstrip().startswith("#"))
    if not NEEDS_A_MODEL.search(re.sub(r"#.*", "", code)):
        monkeypatch.chdir(tmp_path)
        exec(compile(tree, "documented", "exec", dont_inherit=True), {"__name__": "documented"})


def test_links_between_documents_lead_somewhere():
    for path in TEXTS:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name} links to {target}"
