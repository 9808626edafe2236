"""Templates: what is shipped, what is refused and in which words, and how slots are filled."""

import contextlib
import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from correction_graphs import prompts
from correction_graphs.errors import TemplateError
from correction_graphs.prompts import ROLES, Labels, Template, list_templates, load_template, parse_template
from correction_graphs.results import TemplateInfo

VALID = """\
name: tone
version: "3"
language: en
method: cac
description: Polite or rude.
source: made up
labels:
  pass: [polite, friendly]
  fail: rude
prompts:
  check:
    verdict: |
      Is it unfriendly in tone? End with
      Verdict: polite
      or
      Verdict: rude
    natural_language: Is it rude? Look at {answer}, asked {question}, and at {{braces}}.
  revise:
    self: "{critique} says it is rude. Again: {question}"
    self_instruct: "{critique} says it is rude."
"""
SHIPPED = list_templates("cac")
NAMES = sorted({template.name for template in SHIPPED})


def content(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(VALID), **changes}


def template(**changes: Any) -> Template:
    return Template.model_validate(content(**changes))


def refusal(text: str) -> str:
    with pytest.raises(TemplateError) as caught:
        parse_template(text, where="my.yaml")
    return str(caught.value)


# --- What is shipped ----------------------------------------------------------------------------------------------


def test_the_shipped_templates_are_these() -> None:
    assert [(each.method, each.name, each.language) for each in list_templates("cac")] == [
        ("cac", "bias", "en"),
        ("cac", "bias", "zh"),
        ("cac", "correctness", "en"),
        ("cac", "correctness", "zh"),
        ("cac", "general", "en"),
        ("cac", "general", "zh"),
        ("cac", "grounding", "en"),
        ("cac", "grounding", "zh"),
        ("cac", "harm", "en"),
        ("cac", "harm", "zh"),
    ]


@pytest.mark.parametrize("shipped", SHIPPED, ids=str)
def test_a_shipped_template_is_found_by_its_name_and_is_complete(shipped: Template) -> None:
    assert load_template(f"{shipped.name}@{shipped.language}", method=shipped.method) == shipped
    by_documents = {"check.grounding", "note.cut", "note.nothing_found"}
    by_itself = {"check.verdict", "check.natural_language", "check.chain_of_thought"}
    left_out = by_itself if shipped.name == "grounding" else by_documents
    assert shipped.prompts.keys() == ROLES[shipped.method].keys() - left_out
    assert shipped.description
    assert "arXiv" in shipped.source
    assert len({each.sha256 for each in SHIPPED}) == len(SHIPPED)


@pytest.mark.parametrize("shipped", SHIPPED, ids=str)
def test_a_shipped_prompt_is_short_and_says_that_what_it_quotes_is_not_an_instruction(shipped: Template) -> None:
    warning = {"en": "not instructions", "zh": "不是指令"}[shipped.language]
    for role, text in shipped.prompts.items():
        length = len(text.split()) if shipped.language == "en" else len(text) / 2
        assert length < 120, role
        assert (warning in text) == bool(shipped.slots[role])


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_have_the_same_roles_and_slots(name: str) -> None:
    english, chinese = load_template(name), load_template(f"{name}@zh")

    assert english.slots == chinese.slots
    assert (english.language, chinese.language) == ("en", "zh")
    assert english.version == chinese.version


@pytest.mark.parametrize("name", NAMES)
def test_english_is_the_default_language(name: str) -> None:
    assert load_template(name) == load_template(f"{name}@en")


def test_only_the_styles_with_a_verdict_ask_for_one() -> None:
    for shipped in list_templates("cac"):
        assert shipped.labels is not None
        verdict, critique = shipped.labels.verdict[0], shipped.labels.critique[0]
        asks = {
            role: [word in text for word in (f"\n{critique}", f"\n{verdict}")] for role, text in shipped.prompts.items()
        }
        with_one = {
            "check.verdict": [False, True],
            "check.chain_of_thought": [True, True],
            "check.grounding": [True, True],
        }
        assert asks == {role: with_one.get(role, [False, False]) for role in shipped.prompts}


# --- Finding templates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".YAML"])
def test_a_file_is_named_by_a_path_or_by_a_text_that_looks_like_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    (tmp_path / f"tone{suffix}").write_text(VALID, encoding="utf-8")
    (tmp_path / "tone").write_text(VALID, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    expected = parse_template(VALID)

    assert load_template(f"tone{suffix}") == load_template(f"./tone{suffix}") == expected
    assert load_template(Path("tone")) == load_template("./tone") == expected


def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "tone.yaml"
    path.write_text(VALID, encoding="utf-8")
    first = load_template(path)
    path.write_text(VALID.replace('"3"', '"4"'), encoding="utf-8")

    assert (first.version, load_template(path).version) == ("3", "4")


def test_a_template_is_returned_as_it_is() -> None:
    given_one = template()

    assert load_template(given_one) is given_one


def test_the_installed_folder_comes_before_the_one_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "correction_graphs"
    (package.parent / "templates" / "cac").mkdir(parents=True)
    (package.parent / "templates" / "cac" / "tone.yaml").write_text(VALID, encoding="utf-8")
    monkeypatch.setattr(prompts, "__file__", str(package / "prompts.py"))
    assert [each.version for each in list_templates()] == ["3"]

    (package / "templates" / "cac").mkdir(parents=True)
    (package / "templates" / "cac" / "tone.yaml").write_text(VALID.replace('"3"', '"4"'), encoding="utf-8")
    assert [each.version for each in list_templates()] == ["4"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bais", "there is no template 'bais' for 'cac'; did you mean 'bias'? Known: 'bias', 'bias@zh', 'correctness'"),
        ("bias@fr", "did you mean 'bias"),
        ("Harm@ZH", "did you mean 'harm@zh'?"),
        ("quantum", "there is no template 'quantum' for 'cac'. Known: 'bias'"),
        ("", "give its path, such as 'my_template.yaml'"),
        ("bias.zh", "did you mean 'bias@zh'?"),
        ("nowhere/bias.yaml", "there is no template file 'nowhere/bias.yaml' (looked for in "),
        ("nul\0.yaml", "cannot be read: "),
    ],
)
def test_an_unknown_name_or_file_is_answered_with_what_there_is(name: str, message: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(message)):
        load_template(name)


def test_a_folder_is_not_a_template(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"cannot be read: .*directory"):
        load_template(tmp_path)


@pytest.mark.parametrize("load", [lambda: load_template("bias", method="cacc"), lambda: list_templates("cacc")])
def test_an_unknown_method_is_answered_with_the_known(load: Any) -> None:
    with pytest.raises(TemplateError, match="there are no templates for 'cacc'; the methods are 'cac'"):
        load()


def test_a_template_of_another_method_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "ROLES", {"cac": ROLES["cac"], "twin": ROLES["cac"]})

    message = r"template 'tone' \(twin, en, version 3\) is for the method 'twin', but one for 'cac' is needed"
    with pytest.raises(TemplateError, match=message):
        load_template(template(method="twin"))


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "tone.yaml"
    path.write_bytes(VALID.replace("made up", "ça").encode("latin-1"))

    with pytest.raises(TemplateError, match=r"tone\.yaml, line 6, column 9: not UTF-8 \(invalid continuation byte\)"):
        load_template(path)


def test_a_byte_order_mark_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "tone.yaml"
    path.write_text(VALID, encoding="utf-8-sig")

    assert load_template(path) == parse_template(VALID)


# --- What is refused, and in which words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [tone\nversion: 1", "my.yaml, line 2, column 8: while parsing a flow sequence: expected ',' or ']'"),
        (
            VALID.replace("method: cac", "method cac:\t- "),
            "line 4, column 12: while scanning for the next token: found character '\\t' that cannot start any token",
        ),
        (VALID + "\x07", "my.yaml, line 21, column 1: the character '\\x07' is not allowed; write it as an escape"),
        (f"{VALID}---\n{VALID}", "my.yaml, line 21, column 1: expected a single document in the stream: but found"),
        (VALID + "name: other", "my.yaml, line 21, column 1: the key 'name' is given twice"),
        (
            VALID.replace("    self:", "    self: a\n    self:"),
            "my.yaml, line 20, column 5: the key 'self' is given twice",
        ),
        (VALID.replace('"{critique} says it is rude."', "{critique}s"), "my.yaml, line 20, column "),
        (VALID.replace('"3"', "{{a: b}: c}"), "my.yaml, line 2, column 11: a key must be text"),
        (VALID.replace('"3"', "&v 3").replace("made up", "*v"), "my.yaml, line 6, column 9: aliases are not allowed"),
        ("prompts: &p {check: *p}", "my.yaml, line 1, column 21: aliases are not allowed"),
        (
            VALID.replace('"3"', "!!python/object/apply:os.getcwd []"),
            "my.yaml, line 2, column 10: tags are not allowed",
        ),
        ("[" * 20_000, "my.yaml: nested too deeply to be a template"),
        *((f'name: "{escape}"', "is beyond the last character") for escape in ("\\U00110000", "\\UFFFFFFFF")),
        ("", "my.yaml, line 1, column 1: a template is a mapping of 'name', 'version', 'language'"),
        ("# only a comment\n", "but this is nothing"),
        ("- name: tone", "but this is a list"),
        ("just words", "but this is text"),
    ],
)
def test_broken_yaml_is_refused_with_its_place(text: str, message: str) -> None:
    assert message in refusal(text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version:", "verzion:", "line 2, column 1: verzion: unknown field; the fields are 'name', 'version', "),
        ("version:", "verzion:", "line 1, column 1: version: missing"),
        ("name: tone", "name: [tone]", "line 1, column 1: name: must be text"),
        ("name: tone", "name: two words", "name: 'two words' is not a name; use letters, digits"),
        ("name: tone", "name: tone@zh", "name: 'tone@zh' is not a name"),
        ('"3"', '""', "line 2, column 1: version: must not be empty"),
        ("language: en", "language: english language", "line 3, column 1: language: 'english language' is not a BCP 47 language tag"),
        ("method: cac", "method: cot", "line 4, column 1: method: 'cot' is not a method; known: 'cac'"),
        ("source: made up", "source: {who: me}", "line 6, column 1: source: must be text"),
        ("  fail: rude", "  fial: rude", "line 9, column 3: labels.fial: unknown field; the fields are 'pass', 'fail', 'verdict', 'critique'"),
        ("  fail: rude", "  fial: rude", "line 7, column 1: labels.fail: missing"),
        ("  fail: rude", "  fail: {}", "line 9, column 3: labels.fail: must be a text or a list of texts"),
        ("  fail: rude", "  fail: []", "line 9, column 3: labels.fail: "),
        ("  fail: rude", "  fail: [rude, ' ']", "line 9, column 3: labels.fail.1: a label must not be empty"),
        ("  fail: rude", '  fail: "very\\nrude"', "line 9, column 3: labels.fail.0: 'very\\nrude' must be one line of text"),
        ("  fail: rude", "  fail: Polite", "line 7, column 1: labels: pass and fail share 'polite'; each word must mean one"),
        ("  fail: rude", "  fail: rude\n  verdict: critique", "labels: verdict and critique share 'critique'"),
        ("  pass: [polite, friendly]\n  fail: rude", "  none", "line 7, column 1: labels: must be a mapping"),
        ("  revise:", "  repair:", "line 19, column 5: prompts.repair.self: unknown role; the roles of 'cac' are 'check.verdict', "),
        ("    natural_language: Is it", "    natural_language: [Is it]\n    x: ", "line 17, column 5: prompts.check.natural_language: must be text"),
        ('"{critique} says it is rude."', "", "line 20, column 5: prompts.revise.self_instruct: must not be empty"),
        ("Look at {answer}", "Look at {critique}", "line 17, column 5: prompts.check.natural_language: unknown slot {critique}; allowed here: {answer}, {question}"),
        ('{critique} says it is rude."', '{critique}, {question}"', "prompts.revise.self_instruct: unknown slot {question}; allowed here: {critique}"),
        ("Again: {question}", "Again.", "line 19, column 5: prompts.revise.self: the slot {question} is missing"),
        ("{{braces}}", "{braces!r}", "a single '{' in 'stion}, and at {braces!r}.'"),
        ("{{braces}}", "{answer.x}", "a slot is a lower-case name in braces, a literal brace is doubled"),
        ("{{braces}}", "{Answer}", "prompts.check.natural_language: a single '{'"),
        ("{{braces}}", "{}", "prompts.check.natural_language: a single '{'"),
        ("{{braces}}", "}", "prompts.check.natural_language: a single '}'"),
        ("Verdict: polite\n", "Verdict: good\n", "line 12, column 5: prompts.check.verdict: the text must state a passing label ('polite', 'friendly'), written as in `labels`"),
        ("Verdict: rude", "Verdict: rudeness", "the text must state a failing label ('rude')"),
        ("Verdict:", "Judgement:", "the text must state the verdict field 'Verdict'"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused_with_its_place_and_what_would_be_right(old: str, new: str, message: str) -> None:
    assert old in VALID
    assert message in refusal(VALID.replace(old, new))


def test_labels_are_needed_where_the_model_is_asked_for_one() -> None:
    unlabelled = re.sub(r"labels:\n.*\n.*\n", "", VALID)
    assert "line 1, column 1: labels: missing, but 'check.verdict' must tell the model" in refusal(unlabelled)

    only_revise = {"revise": {"self_instruct": "Heed {critique}."}}
    assert template(labels=None, prompts=only_revise).labels is None


def test_a_role_can_be_named_in_one_word_but_not_twice() -> None:
    nested, dotted = {"revise": {"self_instruct": "{critique}"}}, {"revise.self_instruct": "{critique}"}

    assert template(prompts=nested) == template(prompts=dotted)
    with pytest.raises(ValidationError, match=r"role 'revise\.self_instruct' is given twice"):
        template(prompts=nested | dotted)


def test_every_problem_is_told_at_once() -> None:
    text = VALID.replace("language: en", "language: e").replace('"3"', "")

    assert [line.split(": ")[1] for line in refusal(text).splitlines()] == ["version", "language"]


@pytest.mark.parametrize(
    "language", ["en", "zh", "pt-BR", "zh-Hans-CN", "es-419", "sl-rozaj", "de-CH-1996", "yue", "no", "en-x-shop"]
)
def test_language_tags_are_accepted(language: str) -> None:
    assert parse_template(VALID.replace("language: en", f"language: {language}")).language == language


@pytest.mark.parametrize("language", ["e", "english1", "en_US", "en-", "-en", "zh-Hans-", "en US", "中文"])
def test_what_is_no_language_tag_is_refused(language: str) -> None:
    assert "is not a BCP 47 language tag" in refusal(VALID.replace("language: en", f"language: {language}"))


def test_scalars_are_always_text() -> None:
    text = (
        VALID.replace('"3"', "1.10")
        .replace("[polite, friendly]", "[polite, yes, 1]")
        .replace("fail: rude", "fail: [rude, no]")
    )

    loaded = parse_template(text)

    assert loaded.version == "1.10"
    assert loaded.labels == Labels(passing=("polite", "yes", "1"), failing=("rude", "no"))


# --- Labels -------------------------------------------------------------------------------------------------------


def test_a_single_word_is_a_tuple_of_one() -> None:
    assert Labels.model_validate({"pass": " good ", "fail": "bad"}) == Labels(passing=("good",), failing=("bad",))
    assert Labels(passing=("good",), failing=("bad",)).verdict == ("Verdict",)


@pytest.mark.parametrize(
    ("labels", "text", "states"),
    [
        (("unbiased", "biased"), "Verdict: unbiased", False),
        (("unbiased", "biased"), "Verdict: unbiased or biased", True),
        (("pass", "fail"), "Verdict: passing or failing", False),
        (("pass", "fail"), "结论 Verdict 为pass或fail。", True),
        (("正确", "不正确"), "Verdict: 不正确", False),
        (("正确", "不正确"), "Verdict：正确或不正确", True),
        (("+1", "-1"), "Verdict: +1 or -1", True),
        (("c++", "c"), "Verdict: c++", False),
        (("question", "answer"), "Verdict: {question} {answer}", False),
    ],
)
def test_a_label_inside_another_word_is_not_stated(labels: tuple[str, str], text: str, states: bool) -> None:
    changed = content(labels={"pass": labels[0], "fail": labels[1]}, prompts={"check": {"verdict": text}})

    if states:
        Template.model_validate(changed)
    else:
        with pytest.raises(ValidationError, match=r"the text must state a (passing|failing) label"):
            Template.model_validate(changed)


# --- Identity -----------------------------------------------------------------------------------------------------


def test_the_hash_is_stable_under_reformatting() -> None:
    loaded = parse_template(VALID)
    dumped = yaml.safe_dump(content(), sort_keys=True, width=30, indent=8)
    as_json = json.dumps(content())
    explicit = VALID.replace("labels:", "# comment\nlabels:\n  verdict: [Verdict]\n  critique: Critique").replace(
        "\n", "\r\n"
    )

    assert {parse_template(text).sha256 for text in (dumped, as_json, explicit)} == {loaded.sha256}
    assert parse_template(dumped) == loaded
    assert hash(parse_template(as_json)) == hash(loaded)
    assert re.fullmatch("[0-9a-f]{64}", loaded.sha256)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "tune"},
        {"version": "4"},
        {"language": "en-GB"},
        {"description": "Polite, or rude."},
        {"source": ""},
        {"labels": {"pass": ["friendly", "polite"], "fail": "rude"}},
        {"labels": {"pass": ["polite", "friendly"], "fail": ["rude", "coarse"]}},
        {"labels": {"pass": ["polite", "friendly"], "fail": "rude", "critique": "Feedback"}},
        {"prompts": {**content()["prompts"], "revise": {"self_instruct": "{critique}"}}},
        {"prompts": {**content()["prompts"], "revise.self": "{critique} {question}", "revise": {}}},
    ],
)
def test_the_hash_changes_with_any_content(changes: dict[str, Any]) -> None:
    assert template(**changes).sha256 != template().sha256


def test_the_hash_of_this_content_stays_the_same_over_releases() -> None:
    assert parse_template(VALID).sha256 == "416d6ab83fb59f6e096440cf0a928bf31dd283a40222835e185456cb47c8dfd6"


def test_info_is_what_a_result_records() -> None:
    loaded = template()

    assert loaded.info == TemplateInfo(name="tone", version="3", language="en", sha256=loaded.sha256)


def test_a_template_is_immutable_plain_data() -> None:
    loaded = template()

    with pytest.raises(ValidationError, match="frozen"):
        loaded.name = "other"  # type: ignore[misc]
    assert copy.deepcopy(loaded) == pickle.loads(pickle.dumps(loaded)) == loaded
    assert Template.model_validate_json(loaded.model_dump_json()) == loaded


# --- Using templates ----------------------------------------------------------------------------------------------


def test_slots_tell_what_each_role_needs() -> None:
    assert template().slots == {
        "check.verdict": set(),
        "check.natural_language": {"answer", "question"},
        "revise.self": {"critique", "question"},
        "revise.self_instruct": {"critique"},
    }


def test_a_missing_role_is_named_with_the_template_and_the_roles_it_has() -> None:
    loaded = template()
    loaded.require()
    loaded.require("check.verdict", "revise.self")

    message = (
        "template 'tone' (cac, en, version 3) has no role 'check.chain_of_thought'; it has 'check.verdict', "
        "'check.natural_language', 'revise.self', 'revise.self_instruct'."
    )
    with pytest.raises(TemplateError, match=re.escape(message)):
        loaded.require("check.verdict", "check.chain_of_thought")
    with pytest.raises(TemplateError, match=re.escape(message)):
        loaded.fill("check.chain_of_thought")


def test_fill_puts_values_where_the_slots_are_and_single_braces_where_double_ones_are() -> None:
    filled = template().fill("check.natural_language", answer="A", question="Q")

    assert filled == "Is it rude? Look at A, asked Q, and at {braces}."


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {},
            "role 'revise.self' of template 'tone' (cac, en, version 3) has the slots {critique}, {question}, but was given none",
        ),
        ({"critique": "c"}, "but was given {critique}"),
        ({"critique": "c", "question": "q", "answer": "a"}, "but was given {answer}, {critique}, {question}"),
        ({"critique": "c", "question": 1}, "the values for {question} of role 'revise.self' must be text (str)"),
    ],
)
def test_fill_takes_a_value_for_each_slot_and_no_others(values: dict[str, Any], message: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(message)):
        template().fill("revise.self", **values)


# Pieces that a template engine might react to, among arbitrary text.
some_text = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "{question}",
                "{critique}",
                "{{",
                "}}",
                "{",
                "}",
                "\\1",
                "\\g<slot>",
                "%s",
                "{0}",
                "{answer!r:>9}",
                "$x",
                "\r\n",
                "\0",
            ]
        ),
        st.text(max_size=5),
    ),
    max_size=6,
).map("".join)
some_prompt = st.lists(
    st.one_of(
        st.sampled_from(["{critique}", "{question}"]).map(lambda slot: (slot, None)),
        st.sampled_from("{}").map(lambda brace: (brace * 2, brace)),
        st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs", "Z", "Cc"]), max_size=4).map(
            lambda text: (text, text)
        ),
    ),
    max_size=12,
)


@given(parts=some_prompt, critique=some_text, question=some_text)
def test_values_are_inserted_literally(parts: list[tuple[str, str | None]], critique: str, question: str) -> None:
    parts = [("(", "("), ("{question}", None), ("{critique}", None), *parts, (")", ")")]
    loaded = template(labels=None, prompts={"revise.self": "".join(written for written, _ in parts)})

    filled = loaded.fill("revise.self", critique=critique, question=question)

    values = {"{critique}": critique, "{question}": question}
    assert filled == "".join(values[written] if meant is None else meant for written, meant in parts)


@given(critique=some_text, question=some_text, other=some_text)
def test_a_value_changes_nothing_but_its_own_slot(critique: str, question: str, other: str) -> None:
    loaded = template(prompts={"revise.self": "<{critique}|{question}>"})

    one = loaded.fill("revise.self", critique=critique, question=question)
    two = loaded.fill("revise.self", critique=other, question=question)

    assert one.removeprefix(f"<{critique}|") == two.removeprefix(f"<{other}|") == f"{question}>"


@given(critique=some_text, question=some_text)
@pytest.mark.parametrize("shipped", SHIPPED, ids=str)
def test_shipped_prompts_are_filled_literally(shipped: Template, critique: str, question: str) -> None:
    values = {
        "critique": critique,
        "question": question,
        "documents": f"{question}{critique}",
        "answer": "{answer}",
        "answers": critique,
    }
    for role, text in shipped.prompts.items():
        used = {slot: values[slot] for slot in shipped.slots[role]}
        pieces = re.split(r"\{(\w+)\}", text)  # texts and slots in turn
        pieces[1::2] = [values[slot] for slot in pieces[1::2]]
        assert shipped.fill(role, **used) == "".join(pieces)


@given(text=st.one_of(st.text(), some_text))
def test_whatever_is_read_is_a_template_or_a_template_error(text: str) -> None:
    with pytest.raises(TemplateError):
        parse_template(text)
    with contextlib.suppress(TemplateError):
        assert parse_template(VALID.replace("made up", text)).name == "tone"


def test_the_example_of_the_guide_is_a_template() -> None:
    guide = (Path(__file__).parents[1] / "templates" / "README.md").read_text(encoding="utf-8")
    *_, example = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)

    assert set(parse_template(example).prompts) == {"check.chain_of_thought", "revise.self"}


def test_the_guide_describes_every_role() -> None:
    guide = (Path(__file__).parents[1] / "templates" / "README.md").read_text(encoding="utf-8")

    assert [role for roles in ROLES.values() for role in roles if f"`{role}`" not in guide] == []
