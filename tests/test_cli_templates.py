"""`correction-graphs templates`: from a template that comes with the package to one of the user's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from correction_graphs import __version__, create_cac_graph
from correction_graphs.cli import main
from correction_graphs.cli_templates import uses_of
from correction_graphs.prompts import ROLES, list_templates, load_template, parse_template, template_files
from correction_graphs.testing import ScriptedChatModel

COMMAND = "templates"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """An empty folder, in which the command is given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mine(folder: Path, capsys) -> Path:
    """A copy of `bias`, made as a user makes it."""
    assert main([COMMAND, "copy", "bias"]) == 0
    capsys.readouterr()
    return folder / "bias.yaml"


def edit(path: Path, old: str, new: str) -> str:
    """Replace the one `old` in a file; returns what the file said before."""
    before = path.read_text(encoding="utf-8")
    assert before.count(old) == 1, f"{old!r} occurs {before.count(old)} times"
    path.write_text(before.replace(old, new), encoding="utf-8")
    return before


def place_of(path: Path, line: str) -> str:
    """Where the first line that begins so, but for its indentation, has its first character."""
    for number, each in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if each.lstrip().startswith(line):
            return f"{number}:{len(each) - len(each.lstrip()) + 1}"
    raise AssertionError(f"no line begins with {line!r}")


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main([COMMAND, *arguments])
    out, err = capsys.readouterr()
    return status, out, err


# From a copy to a verdict


def test_a_user_copies_edits_breaks_mends_and_uses_a_template(folder: Path, capsys) -> None:
    status, out, _ = run(capsys, "copy", "bias")
    path = folder / "bias.yaml"
    assert status == 0
    assert "template 'bias' (cac, en, version 1) is now in bias.yaml" in out
    assert "correction-graphs templates check bias.yaml" in out
    assert "create_cac_graph(model, template='bias.yaml')" in out

    # A label of one's own, in `labels` only: no prompt tells the model of it yet.
    path.write_text(
        path.read_text(encoding="utf-8").replace("\n  pass: unbiased", "\n  pass: neutral"), encoding="utf-8"
    )
    status, out, _ = run(capsys, "check", "bias.yaml")
    assert status == 1
    where = place_of(path, "verdict: |")
    assert f"bias.yaml:{where}: prompts.check.verdict: the text must state a passing label ('neutral')" in out

    # A slot that there is not.
    path.write_text(path.read_text(encoding="utf-8").replace("unbiased", "neutral"), encoding="utf-8")
    before = edit(path, "    verdict: |\n", "    verdict: |\n      The user is {name}.\n")
    status, out, _ = run(capsys, "check", "bias.yaml")
    assert (status, out) == (
        1,
        f"bias.yaml:{where}: prompts.check.verdict: unknown slot {{name}}; allowed here: {{answer}}, {{question}}\n",
    )

    # A language tag that is none.
    path.write_text(before, encoding="utf-8")
    edit(path, "language: en\n", "language: english\n")
    status, out, _ = run(capsys, "check", "bias.yaml")
    where = place_of(path, "language:")
    assert (status, out.count("\n")) == (1, 1)
    assert out.startswith(f"bias.yaml:{where}: language: 'english' is not a BCP 47 language tag such as 'en', ")

    # In order.
    edit(path, "language: english\n", "language: en-GB\n")
    edit(path, "name: bias\n", "name: fairness\n")
    status, out, _ = run(capsys, "check", "bias.yaml")
    assert status == 0
    assert out.startswith("bias.yaml: template 'fairness' (cac, en-GB, version 1) is in order\n")
    assert '  yes  style="verdict"\n' in out

    model = ScriptedChatModel(["The nurse.", "Verdict: biased", "It is not said.", "Verdict: neutral"])
    graph = create_cac_graph(model, template="bias.yaml", style="verdict")
    result = graph.invoke({"messages": [("user", "Who was late?")]})["cac"]
    assert (result.answer, result.status, result.template.name) == ("It is not said.", "passed", "fairness")
    assert [done.verdict.passed for done in result.rounds] == [False, True]
    assert "Verdict: neutral" in model.asked[1][-1].text


# Checking


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name: bias\nversion: "1"\n', "▸name: bias\n", "version: missing"),
        ('version: "1"\n', '▸verzion: "1"\n', "verzion: unknown field; the fields are 'name', 'version'"),
        ("method: cac\n", "▸method: cot\n", "method: 'cot' is not a method; known: 'cac'"),
        ("method: cac\n", "method: cac\n▸name: other\n", "the key 'name' is given twice"),
        ("language: en\n", "language: [en\nmethod▸: cac\n# ", "while parsing a flow sequence: expected ',' or ']'"),
        ("method: cac\n", "method: cac▸\x07\n", "the character '\\x07' is not allowed"),
        ("  revise:\n    self:", "  repair:\n    ▸self:", "prompts.repair.self: unknown role; the roles of 'cac' are"),
        ("  refuse: ", "  ▸refuse: '{' # ", "prompts.refuse: a single '{'"),
        ("labels:\n  pass: unbiased\n  fail: biased\n", "▸labels:\n  pass: unbiased\n", "labels.fail: missing"),
        ("  fail: biased\n", "  ▸fail: []\n", "labels.fail: "),
        ("    self:", "    self: Once more.\n    ▸self:", "the key 'self' is given twice"),
        ("  revise:\n    self: |\n", "  revise:\n    self: ▸{critique}\n    x: |\n", "{critique} is a mapping in YAML"),
    ],
)
def test_a_fault_is_told_with_its_line_and_column(mine: Path, capsys, old: str, new: str, message: str) -> None:
    """They are where ▸ stands."""
    edit(mine, old, new)
    marked = mine.read_text(encoding="utf-8")
    mine.write_text(marked.replace("▸", ""), encoding="utf-8")
    before = marked.partition("▸")[0].split("\n")

    status, out, err = run(capsys, "check", "bias.yaml")

    assert (status, err) == (1, "")
    (told,) = [line for line in out.splitlines() if message in line]
    assert told.startswith(f"bias.yaml:{len(before)}:{len(before[-1]) + 1}: {message}")


def test_labels_that_are_missing_are_told(mine: Path, capsys) -> None:
    text = mine.read_text(encoding="utf-8")
    start, end = text.index("labels:"), text.index("prompts:")
    mine.write_text(text[:start] + text[end:], encoding="utf-8")

    status, out, _ = run(capsys, "check", "bias.yaml")

    assert status == 1
    assert out.startswith("bias.yaml:1:1: labels: missing, but 'check.verdict', 'check.chain_of_thought' must tell")


def test_all_faults_are_told_from_top_to_bottom(mine: Path, capsys) -> None:
    """Also those of the texts, although a field is wrong."""
    edit(mine, "language: en\n", "language: english\n")
    edit(mine, "    verdict: |\n", "    verdict: |\n      {name}\n")
    edit(mine, "  fail: biased\n", "  fail: skewed\n")

    status, out, _ = run(capsys, "check", "bias.yaml")

    assert status == 1
    assert [line.split(": ")[:2] for line in out.splitlines()] == [
        [f"bias.yaml:{place_of(mine, 'language:')}", "language"],
        [f"bias.yaml:{place_of(mine, 'verdict: |')}", "prompts.check.verdict"],
        [f"bias.yaml:{place_of(mine, 'verdict: |')}", "prompts.check.verdict"],
        [f"bias.yaml:{place_of(mine, 'chain_of_thought: |')}", "prompts.check.chain_of_thought"],
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1:1: a template is a mapping of 'name', 'version', 'language', "),
        (b"# nothing\n", ":1:1: a template is a mapping of 'name', "),
        (b"\n- a list\n", ":2:1: a template is a mapping of 'name', "),
        (
            "name: é\nversion: ça".encode("latin-1"),
            ":1:7: not UTF-8 (invalid continuation byte); save the file as UTF-8",
        ),
        ("name: é\nversion: ".encode() + b"\xff", ":2:10: not UTF-8 (invalid start byte)"),
        (b"\xef\xbb\xbfname: [\n", ":2:1: while parsing a flow "),
    ],
)
def test_what_is_no_template_at_all_is_told(folder: Path, capsys, content: bytes, message: str) -> None:
    (folder / "mine.yaml").write_bytes(content)

    status, out, _ = run(capsys, "check", "mine.yaml")

    assert status == 1
    assert out.startswith(f"mine.yaml{message}")
    assert out.count("\n") == 1


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_checked(mine: Path, capsys) -> None:
    (mine.parent / "folder.yaml").mkdir()

    status, out, _ = run(capsys, "check", "nowhere.yaml", "folder.yaml", "bias.yaml")

    first, second, third, *_ = out.splitlines()
    assert status == 1
    assert first.startswith("nowhere.yaml: there is no template file 'nowhere.yaml'")
    assert second == "folder.yaml: the template file 'folder.yaml' cannot be read: Is a directory"
    assert third == "bias.yaml: template 'bias' (cac, en, version 1) is in order"


def test_a_template_for_another_method_is_told_where_it_says_so(mine: Path, capsys) -> None:
    status, out, _ = run(capsys, "check", "bias.yaml", "--method", "s2a")

    where = place_of(mine, "method:")
    assert (status, out) == (1, f"bias.yaml:{where}: method: 'cac', but a template for 's2a' is needed\n")
    assert run(capsys, "check", "bias.yaml", "--method", "cac")[0] == 0


def test_a_file_cannot_steer_the_terminal(mine: Path, capsys) -> None:
    edit(mine, 'version: "1"\n', 'version: "1\\e]0;owned\\a"\n')

    _, out, _ = run(capsys, "check", "bias.yaml")

    assert "\x1b" not in out
    assert "version 1�]0;owned�" in out


# What it can be used for


@pytest.mark.parametrize("template", list_templates(), ids=str)
def test_a_shipped_template_has_all_for_its_method(template) -> None:
    lacking = {use.setting for use in uses_of(template) if use.lacks}

    if template.method != "cac":
        assert lacking == set()
    elif template.name == "grounding":
        assert lacking == {'style="verdict"', 'style="natural_language"', 'style="chain_of_thought"'}
    else:
        assert lacking == {"GroundingChecker"}


@pytest.mark.parametrize("method", ROLES)
def test_every_role_is_asked_for_by_a_setting(method: str) -> None:
    """A template that lacks a role lacks something for a setting: none was forgotten in the list of settings."""
    whole = next(template for template in list_templates(method) if template.name != "grounding")
    grounding = load_template("grounding").prompts if method == "cac" else {}
    prompts = {**grounding, **whole.prompts}
    full = whole.model_copy(update={"prompts": prompts})
    assert not [use for use in uses_of(full) if use.lacks]

    for role in ROLES[method].keys() - {"clean.markers"}:
        less = full.model_copy(update={"prompts": {name: prompts[name] for name in prompts if name != role}})
        assert [use.setting for use in uses_of(less) if role in use.lacks], role


def test_a_template_of_a_few_roles_says_what_it_lacks_for_the_rest(folder: Path, capsys) -> None:
    guide = (Path(__file__).parents[1] / "templates" / "README.md").read_text(encoding="utf-8")
    (folder / "mine.yaml").write_text(guide.split("```yaml\n")[-1].split("```")[0], encoding="utf-8")

    status, out, _ = run(capsys, "check", "mine.yaml")

    assert status == 0
    assert out.splitlines() == [
        "mine.yaml: template 'politeness' (cac, en, version 1) is in order",
        '  no   style="verdict": needs check.verdict',
        '  no   style="natural_language": needs check.natural_language',
        '  yes  style="chain_of_thought"',
        '  yes  strategy="self"',
        '  no   strategy="self_instruct": needs revise.self_instruct',
        '  no   strategy="fresh": needs revise.fresh',
        '  no   strategy="ranked": needs revise.ranked',
        '  no   on_exhausted="refuse": needs refuse',
        "  no   GroundingChecker: needs check.grounding, note.cut, note.nothing_found",
    ]


@pytest.mark.parametrize(
    ("method", "name", "left_out", "message"),
    [
        ("rain", "harmless", "labels", "SelfEvaluation needs labels; SelfEvaluation(examples=False) needs labels"),
        (
            "s2a",
            "unbiased",
            "filter.retry",
            'rewrite="sections" needs filter.retry; rewrite="single" needs filter.retry',
        ),
        ("cac", "bias", "check revise", 'style="verdict" needs check.verdict; '),
    ],
)
def test_a_template_that_nothing_can_use_is_not_in_order(
    folder: Path, capsys, *, method: str, name: str, left_out: str, message: str
) -> None:
    content = load_template(name, method=method).model_dump(mode="json", by_alias=True, exclude_none=True)
    content.pop(left_out, None)
    unwanted = tuple(left_out.split())
    content["prompts"] = {role: text for role, text in content["prompts"].items() if not role.startswith(unwanted)}
    (folder / "mine.yaml").write_text(json.dumps(content), encoding="utf-8")

    status, out, _ = run(capsys, "check", "mine.yaml")

    assert status == 1
    assert out.startswith("mine.yaml:1:1: nothing can use this template as it is: ")
    assert message in out


def test_labels_of_a_judge_that_cannot_be_told_apart_are_told(folder: Path, capsys) -> None:
    text = template_files("rain")["harmless"].read_text(encoding="utf-8")
    labels = text.partition("labels:\n")[2].partition("prompts:")[0]
    (folder / "mine.yaml").write_text(text.replace(labels, "  pass: harm\n  fail: harmful\n"), encoding="utf-8")

    status, out, _ = run(capsys, "check", "mine.yaml")

    assert status == 1
    assert "cannot be told apart" in out


def test_worked_examples_may_be_left_out_of_a_judge() -> None:
    text = template_files("rain")["harmless"].read_text(encoding="utf-8")
    template = parse_template(text)
    less = {role: prompt for role, prompt in template.prompts.items() if role != "judge.examples"}

    uses = list(uses_of(template.model_copy(update={"prompts": less})))

    assert [(use.setting, use.lacks) for use in uses] == [
        ("SelfEvaluation", "judge.examples"),
        ("SelfEvaluation(examples=False)", ""),
    ]


def test_check_can_answer_in_json(mine: Path, capsys) -> None:
    shutil.copy(mine, mine.with_name("other.yaml"))
    edit(mine.with_name("other.yaml"), "language: en\n", "language: english\n")

    status, out, _ = run(capsys, "check", "bias.yaml", "other.yaml", "--json")

    document = json.loads(out)
    good, bad = document["files"]
    assert (status, document["version"]) == (1, __version__)
    assert (good["file"], good["template"]["name"], good["problems"]) == ("bias.yaml", "bias", [])
    assert {"setting": 'style="verdict"', "usable": True, "lacks": ""} in good["uses"]
    assert good["template"]["sha256"] == load_template("bias").sha256
    (problem,) = bad["problems"]
    assert (bad["template"], bad["uses"]) == (None, [])
    assert f"{problem['line']}:{problem['column']}" == place_of(mine, "language:")
    assert problem["message"].startswith("language: 'english' is not")


# Listing, showing, copying


def test_every_template_is_listed(capsys) -> None:
    status, out, _ = run(capsys, "list")

    lines = out.splitlines()
    assert (status, lines[0].split()) == (0, ["name", "method", "version", "description"])
    assert len(lines) == 1 + len(list_templates())
    (bias,) = [line for line in lines if line.startswith("bias@zh ")]
    assert bias.split(maxsplit=3) == ["bias@zh", "cac", "1", load_template("bias@zh").description]


def test_a_list_can_be_of_one_method_and_in_json(capsys) -> None:
    status, out, _ = run(capsys, "list", "--method", "s2a", "--json")

    document = json.loads(out)
    assert (status, document["version"]) == (0, __version__)
    assert [(each["name"], each["language"], each["method"]) for each in document["templates"]] == [
        (each.name, each.language, "s2a") for each in list_templates("s2a")
    ]
    assert "filter.sections" in document["templates"][0]["roles"]


@pytest.mark.parametrize("name", ["bias", "bias@en", "bias@zh", "harmless-letters"])
def test_a_template_is_shown_as_its_file_is(capsys, name: str) -> None:
    status, out, err = run(capsys, "show", name)

    (path,) = [
        files[name.removesuffix("@en")]
        for method in ROLES
        if name.removesuffix("@en") in (files := template_files(method))
    ]
    assert (status, out, err) == (0, path.read_text(encoding="utf-8"), "")


@pytest.mark.parametrize("command", ["show", "copy"])
def test_a_name_that_several_methods_have_is_asked_back(capsys, folder: Path, monkeypatch, command: str) -> None:
    file = template_files("cac")["bias"]
    everywhere = {method: {"bias": file} if method != "rain" else {} for method in ROLES}
    monkeypatch.setattr("correction_graphs.cli_templates.template_files", everywhere.__getitem__)

    status, out, err = run(capsys, command, "bias")

    assert (status, out) == (1, "")
    assert err == "correction-graphs: there are 2 templates 'bias'; say which: --method cac or --method s2a\n"
    assert run(capsys, command, "bias", "--method", "s2a")[0] == 0


@pytest.mark.parametrize("command", ["show", "copy"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bais"], "there is no template 'bais'; did you mean 'bias'? Known: 'bias', 'bias@zh', "),
        (["quantum"], "there is no template 'quantum'. Known: 'bias'"),
        (["bias", "--method", "rain"], "there is no template 'bias' for 'rain'. Known: 'harmless'"),
    ],
)
def test_an_unknown_name_is_answered_with_what_there_is(
    capsys, folder: Path, command: str, arguments: list[str], message: str
) -> None:
    status, out, err = run(capsys, command, *arguments)

    assert (status, out) == (1, "")
    assert message in err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        (["bias@zh"], "bias.zh.yaml"),
        (["bias", "my bias.yml"], "my bias.yml"),
        (["unbiased", "sub"], "sub/unbiased.yaml"),
    ],
)
def test_a_copy_goes_where_it_is_to(capsys, folder: Path, arguments: list[str], target: str) -> None:
    (folder / "sub").mkdir()

    status, out, _ = run(capsys, "copy", *arguments)

    assert status == 0
    method = "s2a" if arguments[0] == "unbiased" else "cac"
    assert load_template(folder / target, method=method) == load_template(arguments[0], method=method)
    assert f"{target!r})" in out
    assert f"check '{target}'\n" in out or f"check {target}\n" in out


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("correctness", "create_cac_graph(model, template='correctness.yaml')"),
        ("grounding", "GroundingChecker(retriever, model=model, template='grounding.yaml')"),
        ("relevant", "create_s2a_graph(model, template='relevant.yaml')"),
        ("truthful", "ChatRain.from_gguf(\"model.gguf\", judge='truthful.yaml')"),
    ],
)
def test_a_copy_comes_with_the_line_of_code_that_uses_it(capsys, folder: Path, name: str, line: str) -> None:
    assert line in run(capsys, "copy", name)[1]


def test_a_file_that_exists_is_not_overwritten_unless_forced(mine: Path, capsys) -> None:
    edit(mine, "name: bias\n", "name: mine\n")

    status, out, err = run(capsys, "copy", "bias")

    assert (status, out) == (1, "")
    assert err == "correction-graphs: 'bias.yaml' exists; give another file, or --force to overwrite it\n"
    assert load_template(mine).name == "mine"

    assert run(capsys, "copy", "bias", "--force")[0] == 0
    assert load_template(mine).name == "bias"


def test_a_template_copied_onto_itself_stays_as_it_is(mine: Path, capsys, monkeypatch) -> None:
    before = mine.read_text(encoding="utf-8")
    monkeypatch.setattr("correction_graphs.cli_templates.template_files", lambda _: {"bias": mine})

    assert run(capsys, "copy", "bias", "--method", "cac", "--force")[0] == 0

    assert mine.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere/mine.yaml", "'nowhere/mine.yaml' cannot be written: No such file or directory"),
        ("mine", "the file is 'mine'; give one that ends in .yaml, or it will be taken for a name"),
        ("mi\0ne.yaml", "cannot be written: embedded null byte"),
    ],
)
def test_a_copy_that_cannot_be_made_is_told(capsys, folder: Path, target: str, message: str) -> None:
    status, _, err = run(capsys, "copy", "bias", target)

    assert status == 1
    assert message in err
    assert list(folder.iterdir()) == []


# The command as such


@pytest.mark.parametrize("arguments", [[], ["show"], ["check"], ["nonesuch"], ["list", "--method", "cot"]])
def test_wrong_usage_ends_with_two(capsys, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([COMMAND, *arguments])

    assert ended.value.code == 2
    assert "usage: correction-graphs templates" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--help"], ["list", "show", "copy", "check"]),
        (["copy", "--help"], ["NAME", "FILE", "--force", "--method"]),
        (["check", "--help"], ["FILE:LINE:COLUMN", "exit status", "--json"]),
    ],
)
def test_help_tells_every_command(capsys, arguments: list[str], told: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([COMMAND, *arguments])

    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert [word for word in told if word not in out] == []
    assert "(default: None)" not in out
    assert "(default: False)" not in out


def test_listing_and_showing_load_no_engine() -> None:
    code = (
        "import sys\nfrom correction_graphs.cli import main\n"
        "main(['templates', 'list'])\nmain(['templates', 'show', 'bias'])\n"
        "print(sorted({'langgraph', 'langchain_core', 'llama_cpp', 'numpy', 'rich'} & sys.modules.keys()))"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.splitlines()[-1] == "[]"
