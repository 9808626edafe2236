"""The wheel: what is in it, and that it works where nothing of the checkout is."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "correction_graphs"

pytestmark = pytest.mark.slow


def run(*command: str | Path, folder: Path, path: Path) -> str:
    """Run a command in `folder`, away from the checkout, with `path` as PYTHONPATH, and return what it prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout without a network: hatchling is among the test dependencies."""
    folder = tmp_path_factory.mktemp("dist")
    run(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, folder=folder, path=folder
    )
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def members(wheel: Path) -> dict[str, str]:
    """The text of every file in the wheel, by name; what is no text, with replacements."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name).decode(errors="replace") for name in archive.namelist()}


@pytest.fixture(scope="module")
def metadata(members: dict[str, str]) -> dict[str, str]:
    """The files of the wheel's dist-info."""
    return {name.split("/", 1)[1]: text for name, text in members.items() if ".dist-info/" in name}


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that shows all packages installed here but ours.

    Put on PYTHONPATH, it stands in for downloading them. A .pth file there has no effect, so the editable installation
    of the checkout stays out as well.
    """
    folder = tmp_path_factory.mktemp("dependencies")
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            if PACKAGE not in entry.name and entry.suffix != ".pth":
                (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that holds the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder.parent, path=folder)
    install = ("install", "--quiet", "--no-index", "--no-deps", wheel)
    run(sys.executable, "-m", "pip", "--python", folder, *install, folder=folder.parent, path=folder)
    return folder


@pytest.fixture
def installed(environment: Path, dependencies: Path, tmp_path: Path) -> Callable[[str], str]:
    """Runs code with the installed wheel, in an empty folder, and returns what it prints."""
    return lambda code: run(environment / "bin" / "python", "-c", code, folder=tmp_path, path=dependencies)


# --- What is in it ------------------------------------------------------------------------------------------------


def test_the_wheel_holds_every_module_and_the_mark_that_it_is_typed(members: dict[str, str]) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / PACKAGE).rglob("*.py")}

    assert modules <= members.keys()
    assert f"{PACKAGE}/py.typed" in members


def test_the_wheel_holds_every_template(members: dict[str, str]) -> None:
    templates = {f"{PACKAGE}/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "templates").rglob("*.yaml")}

    assert f"{PACKAGE}/templates/cac/bias.yaml" in templates
    assert templates == {name for name in members if name.endswith(".yaml")}


def test_the_wheel_holds_nothing_else(members: dict[str, str]) -> None:
    kinds = {Path(name).suffix for name in members if not name.split("/")[0].endswith(".dist-info")}

    assert {name.split("/")[0].split("-")[0] for name in members} == {PACKAGE}
    assert kinds <= {".py", ".typed", ".yaml", ".md", ".gguf", ".json"}
    assert {name for name in members if name.endswith((".gguf", ".json"))} == {
        f"{PACKAGE}/lab/fallible.gguf",
        f"{PACKAGE}/lab/fallible.json",
    }
    assert not [name for name in members if "test_" in name or "/tests/" in name]


def test_an_index_would_take_the_wheel(wheel: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, folder=wheel.parent, path=wheel.parent)


def test_the_wheel_carries_its_licence(metadata: dict[str, str]) -> None:
    assert metadata["licenses/LICENSE"] == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert message_from_string(metadata["METADATA"])["License-Expression"] == "MIT"


def test_the_wheel_declares_its_command(metadata: dict[str, str]) -> None:
    entry_points = configparser.ConfigParser()
    entry_points.read_string(metadata["entry_points.txt"])

    assert dict(entry_points["console_scripts"]) == {"correction-graphs": f"{PACKAGE}.cli:main"}


def test_an_extra_may_be_left_out(metadata: dict[str, str]) -> None:
    required = [
        line
        for line in message_from_string(metadata["METADATA"]).get_all("Requires-Dist", [])
        if "extra ==" not in line
    ]

    assert not [
        line
        for line in required
        if line.startswith(("llama", "langchain-openai", "openai", "huggingface", "langchain>"))
    ]


# --- What it does -------------------------------------------------------------------------------------------------


def test_what_is_imported_is_the_wheel(installed: Callable[[str], str], environment: Path) -> None:
    code = "import json, sys, correction_graphs; print(json.dumps([correction_graphs.__file__, sys.path]))"

    file, path = json.loads(installed(code))

    assert Path(file).is_relative_to(environment)
    assert str(ROOT) not in path


def test_the_installed_version_is_the_one_in_the_source(installed: Callable[[str], str]) -> None:
    code = "from importlib.metadata import version; import correction_graphs as c; print(version(c.__name__) == c.__version__)"

    assert installed(code) == "True"


def test_a_template_is_read_from_inside_the_wheel(installed: Callable[[str], str]) -> None:
    import correction_graphs

    code = "from correction_graphs import load_template; print(load_template('bias').sha256)"

    assert installed(code) == correction_graphs.load_template("bias").sha256


def test_an_answer_is_corrected_with_the_installed_wheel(installed: Callable[[str], str]) -> None:
    code = """
from correction_graphs import create_cac_graph
from correction_graphs.testing import ScriptedChatModel

graph = create_cac_graph(ScriptedChatModel(["Sydney.", "Canberra."]), checker=lambda r: "Canberra" in r.answer)
out = graph.invoke({"messages": [("user", "capital of Australia?")]})
print(out["messages"][-1].text)
"""

    assert installed(code) == "Canberra."


def test_the_command_is_installed_and_explains_itself(environment: Path, dependencies: Path, tmp_path: Path) -> None:
    shown = run(environment / "bin" / "correction-graphs", "--help", folder=tmp_path, path=dependencies)

    assert "demo" in shown


# --- And a checkout -----------------------------------------------------------------------------------------------


def test_a_checkout_reads_its_templates_as_they_are_now(dependencies: Path, tmp_path: Path) -> None:
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for part in (PACKAGE, "templates"):
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    path = Path(f"{checkout}{os.pathsep}{dependencies}")
    code = "from correction_graphs import load_template; print(load_template('mine').description)"

    bias = (checkout / "templates" / "cac" / "bias.yaml").read_text(encoding="utf-8")
    described = [line for line in bias.splitlines() if not line.startswith(("description:", "name:"))]
    for description in ("First wording.", "Second wording."):
        text = "\n".join([f"name: mine\ndescription: {description}", *described])
        (checkout / "templates" / "cac" / "mine.yaml").write_text(text, encoding="utf-8")

        assert run(sys.executable, "-c", code, folder=elsewhere, path=path) == description
