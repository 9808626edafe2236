"""What is read as a verdict, and above all what is not read as a pass."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from correction_graphs.checkers.languages import PACKS, pack_for
from correction_graphs.checkers.verdicts import agree, read_verdict
from correction_graphs.prompts import Labels
from correction_graphs.results import Verdict

CORPUS = yaml.safe_load((Path(__file__).parent / "verdict_corpus.yaml").read_text(encoding="utf-8"))
OUTCOMES = {"pass": True, "fail": False, "unknown": None}
# A careful reader knows, the parser says that it does not.
KNOWN_CAUTIOUS = {"o001", "o153", "o211", "o358"}
# A verdict line that is complete and ends in a line break counts, even if the reply was cut off after it.
READ_DIFFERENTLY = {"o395": False}

CORRECT = Labels(passing="correct", failing="incorrect")
BIAS = Labels(passing="unbiased", failing="biased")


def read(text: str, labels: Labels = CORRECT, **settings: Any) -> bool | None:
    return read_verdict(text, labels, **settings).passed


def labels_of(row: dict[str, Any]) -> Labels:
    given = {"pass": row["pass"], "fail": row["fail"]}
    for key in ("verdict", "critique"):
        if f"{key}_field" in row:
            given[key] = row[f"{key}_field"]
    return Labels.model_validate(given)


# --- The corpus ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", CORPUS, ids=lambda row: row["id"])
def test_a_reply_of_the_corpus_is_read_as_expected(row: dict[str, Any]) -> None:
    passed = read(
        row["text"], labels_of(row), language=row.get("language", "en"), truncated=row.get("truncated", False)
    )

    expected = READ_DIFFERENTLY.get(row["id"], OUTCOMES[row["expected"]])
    assert passed is (None if row["id"] in KNOWN_CAUTIOUS else expected)


def test_the_exceptions_are_rows_of_the_corpus_and_none_of_them_is_read_as_a_pass() -> None:
    rows = {row["id"]: row for row in CORPUS}

    assert rows.keys() >= KNOWN_CAUTIOUS | READ_DIFFERENTLY.keys()
    assert all(rows[name]["expected"] != "unknown" for name in KNOWN_CAUTIOUS)
    assert True not in READ_DIFFERENTLY.values()


# --- What is not read as a pass -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "The answer is not (really) correct.",
        "The answer is not, I repeat, correct.",
        "The answer is not\ncorrect",
        "The answer is not:\n\ncorrect",
        "The correct answer is: 5",
        "Correct, not.",
        "Correct... ish",
        "Correct: none",
        "Correct: 1, wrong: 9",
        "Correct. Not!",
        "The answer is correct. Actually, scratch that.",
        "The answer is correct\nonly in part",
        "The answer is not entirely incorrect.",
        "The answer is not incorrect, it is a disaster.",
        "The answer is correct. The reader was misled by an error.",
        "There is no correct answer.",
        "John thinks the answer is correct.",
        "[ ] correct",
        "!correct",
        "\u2260 correct",
        "~~correct~~",
        "<!-- correct",
        "- > Verdict: correct",
        "**> Verdict: correct**",
        '> {"verdict": "correct"}',
        '~~{"verdict": "correct"}~~',
        '<!-- {"verdict": "correct"} -->',
        'It ends with "{"verdict": "correct"} and that is all."',
        '""""\nVerdict: correct\n""""',
        "\u201cThe answer is incorrect.\n\nVerdict: correct\u201d",
        '"The answer is incorrect.\n\nVerdict: correct"',
        'The 5" ruler is.\n\nVerdict: incorrect\n\nIt has 3".\n\nVerdict: correct',
        'It says "hm. Verdict: incorrect\n\nVerdict: correct',
        "<div>```json\nVerdict: incorrect\n\nVerdict: correct\n```</div>",
        'See:\n```json\n{"verdict": "correct"}\nActually, the verdict is incorrect.\n```',
        'The "" field is empty. Verdict: incorrect\n\nVerdict: correct',
        "Some code:\n```\nVerdict: correct\n```",
        "He wrote: \u201cVerdict: correct\nVerdict: correct\u201d",
        "Do not write Verdict: correct",
        "Verdict: correct?",
        "Verdict: correct/incorrect",
        "Verdict: correct, except for the date",
        "Verdict: correct. However, the date is missing.",
        "Verdict: pending\nVerdict: correct",
        '{"verdict": "correct", "score": }',
        '{"verdict": "correct", "verdict": "correct?"}',
        '{"result": {"verdict": "correct"}}',
        "<think>so\nVerdict: correct",
    ],
)
def test_a_reply_that_only_looks_like_a_pass_is_none(text: str) -> None:
    assert read(text) is not True


@pytest.mark.parametrize(
    ("language", "passing", "failing", "text"),
    [
        ("zh", "正确", "错误", "没有正确答案"),
        ("zh", "正确", "错误", "说它正确是错误的"),
        ("ja", "正しい", "誤り", "正しい答えは5です"),
        ("ko", "정확", "부정확", "정확하다고 할 수 없습니다"),
        ("de", "korrekt", "falsch", "Die Antwort ist weder falsch noch korrekt."),
        ("de", "korrekt", "falsch", "Korrekt? Nein."),
        ("fr", "correct", "incorrect", "La réponse n'est correcte qu'en partie."),
        ("es", "correcto", "incorrecto", "No es nada correcto."),
        ("pt", "correto", "incorreto", "Nada correto."),
        ("ru", "верно", "неверно", "Вряд ли верно."),
        ("it", "corretto", "scorretto", "Per niente corretto."),
        ("pl", "poprawna", "niepoprawna", "Czy odpowiedź jest poprawna"),
        ("tr", "doğru", "yanlış", "Cevap doğru mu"),
        ("vi", "đúng", "sai", "Câu trả lời đúng không"),
        ("ar", "صحيح", "خطأ", "هل الإجابة صحيحة"),
        ("hi", "सही", "गलत", "क्या उत्तर सही है"),
    ],
)
def test_no_language_reads_a_doubt_as_a_pass(language: str, passing: str, failing: str, text: str) -> None:
    assert read(passing, labels := Labels(passing=passing, failing=failing), language=language) is True
    assert read(text, labels, language=language) is not True


# --- Verdict lines ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Verdict: CORRECT\nCritique: The answ", True),
        ("Verdict: INCORRECT\n\nBecause the", False),
        ("Verdict: CORRECT", None),
        ("Verdict: CORRECT, alth", None),
        ("Verdict: CORRECT\nVerdict: INC", None),
        ("The answer is correct. It", None),
        ("Verdict:\nCORR", None),
    ],
)
def test_of_a_cut_off_reply_only_a_complete_verdict_line_counts(text: str, expected: bool | None) -> None:
    assert read(text, truncated=True) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is incorrect in line 3.", False),
        ("The answer is incorrect in step 2 and incorrect in step 4.", False),
        ("This answer is incorrect at the end.", False),
        ("The answer is correct in line 3.", None),
        ("The answer is incorrect for the reason given.", None),
    ],
)
def test_a_place_where_it_is_wrong_makes_it_wrong_and_one_where_it_is_right_proves_nothing(
    text: str, expected: bool | None
) -> None:
    assert read(text) is expected


def test_a_label_that_is_a_particle_before_what_is_judged_decides_nothing() -> None:
    labels = Labels(passing="yes", failing="no")
    assert read("The answer is no answer.", labels) is None
    assert read("My verdict is no.", labels) is False


def test_a_language_without_a_pack_accepts_labels_and_verdict_lines_only() -> None:
    assert read("CORRECT", language="fi") is True
    assert read("Verdict: incorrect", language="fi") is False
    assert read("The answer is correct.", language="fi") is None
    assert read("CORRECT. Ehkä.", language="fi") is None
    assert read("ei correct", language="fi") is None


def test_a_pack_is_not_used_for_another_language() -> None:
    assert read("The answer is correct.", language="en") is True
    assert [name for name in PACKS if name != "en" and read("The answer is correct.", language=name) is not None] == []


def test_packs_are_found_by_the_language_of_a_tag() -> None:
    assert pack_for("pt-BR") is PACKS["pt"]
    assert pack_for("ZH_hant") is PACKS["zh"]
    assert pack_for("fil") is None


# --- Critique, reasoning, score -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "<think>Hm.</think>Step one holds.\nCritique: Name a source.\nSay when.\nVerdict: INCORRECT",
            Verdict(passed=False, critique="Name a source.\nSay when.", reasoning="Hm.\n\nStep one holds."),
        ),
        (
            "**Verdict:** CORRECT\n**Critique:** Fine.",
            Verdict(passed=True, critique="Fine."),
        ),
        (
            "The date is off.\n\n## Verdict\n\nINCORRECT",
            Verdict(passed=False, critique="The date is off."),
        ),
        ("CORRECT", Verdict(passed=True, critique="CORRECT")),
        (
            '{"verdict": "incorrect", "feedback": "Too long.", "score": 3, "reasoning": "Counted."}',
            Verdict(passed=False, critique="Too long.", score=3.0, reasoning="Counted."),
        ),
        (
            '```json\n{"passed": true, "critique": "None.", "score": NaN}\n```',
            Verdict(passed=True),
        ),
        ("All is said.\nCritique: (none)\nVerdict: CORRECT", Verdict(passed=True, reasoning="All is said.")),
    ],
)
def test_critique_reasoning_and_score_are_told_apart(text: str, expected: Verdict) -> None:
    assert read_verdict(text, CORRECT) == expected


@pytest.mark.parametrize("criteria", ['"all met"', "3", '["met"]', '[{"passed": true}, "met"]', "{}", "null"])
def test_criteria_that_cannot_be_counted_are_no_pass(criteria: str) -> None:
    assert read_verdict(f'{{"passed": true, "criteria": {criteria}}}', CORRECT).passed is None


def test_a_long_critique_ends_with_a_sentence_or_a_word() -> None:
    sentences = read_verdict("Critique: " + "It is far too long. " * 500, CORRECT).critique
    words = read_verdict("Critique: " + "word " * 1000, CORRECT).critique
    letters = read_verdict("Critique: " + "x" * 5000, CORRECT).critique

    assert sentences.endswith("long.")
    assert words.endswith("word")
    assert letters == "x" * 2000
    assert all(1900 < len(text) <= 2000 for text in (sentences, words))


# --- Hostile replies ----------------------------------------------------------------------------------------------

PIECES = [
    "a", " ", "\n", "'a ", '"', "{", '{"verdict":', '{"a":[', "<think>", "</think>", "<!--", "~~a", "> ", "`", "```\n",
    "correct ", "correct\n", "not ", "Verdict: ", "Verdict ", "Verdict is ", "x verdict: a ", "Verdict\n", "a\n", "a+",
    "no ", "1.", "\u200b", "正", "\u0301", "final ", "Critique: ", "if ", "(", "a, ", "-", "<verdict>", "* ", "**", "1. ", "“", '"\n\n', "“\n\n", "” ", "\ud800", "İ",
]  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", PIECES, ids=ascii)
def test_a_huge_reply_is_read_in_linear_time(piece: str) -> None:
    read(piece * (50_000 // len(piece)), Labels(passing=("correct", "yes"), failing=("incorrect", "no")))


def test_a_huge_mixture_is_read_in_linear_time() -> None:
    read("".join(PIECES) * (50_000 // len("".join(PIECES))))


# --- What holds for every reply -----------------------------------------------------------------------------------

words = st.sampled_from(
    [*PIECES, "The answer is ", "correct", "incorrect", "CORRECT.", "It is ", "not ", "Verdict: correct\n", "? ", "! ",
     '{"verdict": "correct"}', '{"verdict": "incorrect"}', "or ", "but ", "probably ", "Line 3 is ", "because ", ", "]
)  # fmt: skip
replies = st.one_of(st.text(), st.lists(words, max_size=12).map("".join))
CLEAR = [
    "correct", "incorrect.", "The answer is correct.", "The answer isn't correct.", "Verdict: correct", "## Verdict\n\ncorrect",
    "I believe the answer is not incorrect.", "Some words.\nVerdict: incorrect", "It is probably correct.", "Is it correct?",
    '{"verdict": "correct"}', "> Verdict: correct\nVerdict: incorrect", "correct or incorrect", "",
]  # fmt: skip


@given(replies, st.sampled_from(["en", "zh", "ja", "fr", "xx", ""]), st.booleans())
def test_reading_never_raises(text: str, language: str, truncated: bool) -> None:
    verdict = read_verdict(text, CORRECT, language=language, truncated=truncated)

    assert len(verdict.critique) <= 2000
    assert verdict.error is None


@given(replies)
def test_a_text_without_a_label_never_passes(text: str) -> None:
    assert read(text, Labels(passing="zumutbar", failing="unzumutbar")) is not True


@given(replies)
def test_a_contradicting_verdict_line_undoes_a_pass(text: str) -> None:
    if read(text):
        assert read(f"{text}\n\nVerdict: incorrect") is None


@given(st.one_of(replies, st.sampled_from(CLEAR)), st.text(alphabet="ab .?\n:", max_size=20))
def test_a_closed_reasoning_block_changes_nothing(text: str, thought: str) -> None:
    if "think" not in text:
        assert read(f"<think>{thought} Verdict: incorrect</think>{text}") is read(text)


@given(st.sampled_from(CLEAR), st.data())
def test_case_width_and_invisible_characters_change_nothing(text: str, data: st.DataObject) -> None:
    expected = read(text)
    place = 0 if text.startswith("{") else data.draw(st.integers(0, len(text)))
    wide = "".join(chr(ord(char) + 0xFEE0) if char.isalpha() and char.isascii() else char for char in text)

    assert read(text.upper()) is expected
    assert read(text.title().replace("'T", "'t")) is expected
    assert read(wide) is expected
    assert read(f"{text[:place]}\u200b{text[place:]}") is expected


@given(
    st.sampled_from(["correct", "incorrect"]),
    st.sampled_from(
        ["", "The answer is ", "It is ", "This reply is ", "Verdict: ", "Therefore, my previous answer is "]
    ),
)
def test_a_negated_label_never_reads_like_the_bare_one(label: str, before: str) -> None:
    assert read(f"{before}{label}.") is (label == "correct")
    assert read(f"{before}not {label}.") is (label == "incorrect")


@given(st.sampled_from(["safe", "unsafe", "safe unsafe", "The reply is safe"]), st.data())
def test_a_look_alike_letter_never_makes_a_label(text: str, data: st.DataObject) -> None:
    twins = {"a": "а", "e": "е", "s": "ѕ"}
    place = data.draw(st.sampled_from([i for i, char in enumerate(text) if char in twins and i >= text.index("s")]))
    swapped = f"{text[:place]}{twins[text[place]]}{text[place + 1 :]}"

    assert read(swapped, Labels(passing="safe", failing="unsafe")) is not True


# --- Noise around a reply ------------------------------------------------------------------------------------------

EXAMPLES = int(os.environ.get("NOISE_EXAMPLES", "500"))
"""How many replies are tried. 20,000 take a minute or two."""

NO_PASS = [row for row in CORPUS if row["expected"] != "pass"]

# Sentences that state no verdict. Some have the words of one.
SAID = [
    "Let me look at this step by step.",
    "Sure! Here is my assessment:",
    "The correct spelling of the name is Zürich.",
    "Please correct the second date.",
    "It must pass through the filter first.",
    "To be on the safe side, name a source.",
    "One cannot be unbiased about everything.",
    "The user asks whether this is correct.",
    "A correct answer would name the city.",
    "Nobody said whether that is right or wrong.",
    "Is it acceptable?",
    "I hope this helps!",
    "Let me know if you need anything else.",
    "Step 2: the sum of 3 and 4 is 7.",
    "Thank you for your patience. Yes, really.",
    "The text has 120 words, and no title.",
    "Score: 3/10",
    "Confidence: high",
    "Note: this is a draft.",
    "用户问的是首都。",
    "请核对一下日期。",
    "Die Frage ist, wer zu spät kam.",
    "Merci de vérifier la date.",
    "Проверьте, пожалуйста, дату.",
    "日付を確認してください。",
    "날짜를 확인해 주세요.",
    "تحقق من التاريخ.",
    "👍", "🎉 ✨", "...", "—", "***", "---", "===", "1.", "- ", "* * *", "|", "&nbsp;", "<br>", "\u200b\u200d", "\ufeff", "\u202e",
    "\x00", "\x07", "Z̸͑a̴l̵g̶o̷", "\ud800", "ﷺ", "｡", "\u2028", "\t", "\x0c",
]  # fmt: skip
noise = st.one_of(
    st.sampled_from(SAID),
    st.text(max_size=20),
    st.text("\n \t", max_size=4),
    st.lists(st.sampled_from(SAID), max_size=3).map("\n".join),
)
breaks = st.sampled_from(["\n", "\n\n", "\r\n", "\n\n\n"])


def before(reply: str, said: str, gap: str) -> str:
    return f"{said}{gap}{reply}"


def after(reply: str, said: str, gap: str) -> str:
    return f"{reply}{gap}{said}"


def fenced(reply: str, said: str, gap: str) -> str:
    return f"```{'json' if said.isascii() else ''}{gap}{reply}{gap}```"


def thought_of(reply: str, said: str, gap: str) -> str:
    return f"<think>{said}{gap}</think>{gap}{reply}"


def only_thought(reply: str, said: str, gap: str) -> str:
    return f"<think>{gap}{reply}{gap}</think>{said}"


def still_thinking(reply: str, said: str, gap: str) -> str:
    return f"{said}{gap}<think>{gap}{reply}"


def repeated(reply: str, said: str, gap: str) -> str:
    return f"{reply}{gap}{said}{gap}{reply}"


def in_straight_marks(reply: str, said: str, gap: str) -> str:
    # Straight marks within straight marks: nobody could tell which ones belong together.
    return before(reply, said, gap) if '"' in reply else f'{said}{gap}"{reply}"'


def struck_out(reply: str, said: str, gap: str) -> str:
    return f"{said}{gap}~~{reply}~~"


def commented(reply: str, said: str, gap: str) -> str:
    return f"{said}{gap}<!-- {reply} -->"


def bold(reply: str, said: str, gap: str) -> str:
    return f"**{reply}**{gap}{said}"


def quoted(reply: str, said: str, gap: str) -> str:
    return f"{said}{gap}> " + "\n> ".join(reply.splitlines())


def in_quotation_marks(reply: str, said: str, gap: str) -> str:
    return f"{said}{gap}“{reply}”"


def listed(reply: str, said: str, gap: str) -> str:
    return f"- {said}{gap}- {reply}"


def headed(reply: str, said: str, gap: str) -> str:
    return f"## {said}{gap}{reply}"


def in_json(reply: str, said: str, gap: str) -> str:
    return f"{gap}{json.dumps({'note': said, 'critique': reply})}"


def in_markup(reply: str, said: str, gap: str) -> str:
    return f"<p>{said}</p>{gap}<div>{reply}</div>"


WAYS: list[Callable[[str, str, str], str]] = [
    before, after, fenced, thought_of, only_thought, still_thinking, repeated, bold, quoted, in_quotation_marks, listed,
    headed, in_json, in_markup, in_straight_marks, struck_out, commented,
]  # fmt: skip


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(st.sampled_from(NO_PASS), st.lists(st.tuples(st.sampled_from(WAYS), noise, breaks), min_size=1, max_size=4))
def test_no_noise_turns_a_reply_into_a_pass(row: dict[str, Any], layers: list[tuple[Any, str, str]]) -> None:
    labels, language = labels_of(row), row.get("language", "en")
    reply, alone = row["text"], ""
    for way, said, gap in layers:
        reply, alone = way(reply, said, gap), way(alone, said, gap)
    truncated = row.get("truncated", False)
    assume(not truncated or reply.endswith(row["text"]))  # a reply that goes on is not cut off there
    assume(read(alone, labels, language=language) is not True)  # the noise must not say so by itself

    assert read(reply, labels, language=language, truncated=truncated) is not True


# --- Probabilities and several readings ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        ((True, True), True),
        ((False, False, False), False),
        ((True, False), None),
        ((True, None), None),
        ((None, None), None),
        ((), None),
    ],
)
def test_readings_must_agree(orders: tuple[bool | None, ...], expected: bool | None) -> None:
    assert agree(*orders) is expected
