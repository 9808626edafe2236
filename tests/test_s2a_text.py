"""What filters reply, what they dropped, and whether they stayed true to the text: all without a model."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from correction_graphs.filtering.alignment import align, clauses, dropped, sentences
from correction_graphs.filtering.guards import breaches
from correction_graphs.filtering.numbers import numbers_in, values_in
from correction_graphs.filtering.replies import read_sections, read_single, said
from correction_graphs.filtering.rewriting import is_clean
from correction_graphs.prompts import load_template

HERE = Path(__file__).parent
CORPUS = yaml.safe_load((HERE / "s2a_corpus.yaml").read_text(encoding="utf-8"))
PAIRS = yaml.safe_load((HERE / "s2a_guard_pairs.yaml").read_text(encoding="utf-8"))


def labels_of(language):
    prompts = load_template(f"unbiased@{language}", method="s2a").prompts
    return prompts["label.context"].splitlines(), prompts["label.question"].splitlines()


# Reading a filter's reply


def test_the_corpus_is_large_and_has_no_entry_twice():
    assert len(CORPUS) >= 120
    assert len({(entry["language"], entry["name"]) for entry in CORPUS}) == len(CORPUS)
    assert len({entry["reply"] for entry in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: f"{entry['language']}: {entry['name']}")
def test_a_filters_reply_is_read_as_it_is_meant(entry):
    reply = read_sections(entry["reply"], *labels_of(entry["language"]))

    assert reply == (entry.get("context", ""), entry.get("question", ""), entry.get("problem"))


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("What is the capital?", "What is the capital?"),
        ("Sure! Here is the rewritten message:\n\nWhat is the capital?", "What is the capital?"),
        ("Here is the message: What is the capital?", "What is the capital?"),
        ('"What is the capital?"', "What is the capital?"),
        ("```\nWhat is the capital?\n```", "What is the capital?"),
        ("<think>Hm.</think>What is the capital?", "What is the capital?"),
        ("[think]Hm.[/think]What is the capital?", "What is the capital?"),
        ("◁think▷Hm.◁/think▷What is the capital?", "What is the capital?"),
        ("<think>No <reasoning> here, no <think>.</think>What is the capital?", "What is the capital?"),
        ("<thinking>Hm.</think>What is the capital?", "What is the capital?"),
        ("Opened in the prompt.</think>What is the capital?", "What is the capital?"),
        ("What is the capital?<think>It ran on", "What is the capital?"),
        ("What is the capital?\n\nNote: I removed the opinion.", "What is the capital?"),
        ('He said: "Go." What did he say?', 'He said: "Go." What did he say?'),
        ("“Go” is a verb. Is “went” one?", "“Go” is a verb. Is “went” one?"),
        ("以下是改写后的内容：\n首都是哪里？", "首都是哪里？"),
        ("Here are 3 apples. How many are there?", "Here are 3 apples. How many are there?"),
        ("Yes or no: is it Canberra?", "Yes or no: is it Canberra?"),
    ],
)
def test_a_reply_of_one_text_is_read_without_what_stands_around_it(reply, text):
    assert read_single(reply).context == text


@pytest.mark.parametrize("reply", ["", "  ", "none", "None.", "<think>x"])
def test_a_reply_of_no_text_is_empty(reply):
    assert read_single(reply).problem == "empty"


@pytest.mark.parametrize("mark", ["[reasoning]", "[Thinking]", "[thought]", "[thoughts]", "[/reasoning]", "<thinking>"])
def test_a_mark_in_the_users_own_text_is_no_thought_of_the_filter(mark):
    original = f"I like it. In the log stands {mark} effort=high. What does effort=high mean?"
    context, question = f"In the log stands {mark} effort=high.", "What does effort=high mean?"

    for thought in ("", "<think>The user asks.</think>\n"):
        reply = f"{thought}Context: {context}\nQuestion: {question}"
        assert read_sections(reply, *labels_of("en"), original=original) == (context, question, None)
        assert read_single(f"{thought}{context} {question}", original=original).context == f"{context} {question}"


@given(st.text(), st.text())
def test_any_reply_can_be_read(text, more):
    for reply in (text, f"Context: {text}\nQuestion: {more}", f"{text}Context{more}"):
        for read in (read_sections(reply, *labels_of("en")), read_single(reply)):
            assert (read.problem is None) == bool(read.context or read.question)


plain = st.from_regex(r"\A[a-z]{3,9}( [a-z]{3,9}){0,4}[.?]\Z").filter(lambda text: said(text) != "")


@given(
    plain,
    plain,
    st.sampled_from(
        ["Context: {}\nQuestion: {}", "**Context:** {}\n\n**Question:** {}", "# Context\n{}\n# Question\n{}"]
    ),
)
def test_parts_come_back_as_they_were_written(context, question, form):
    assert read_sections(form.format(context, question), *labels_of("en")) == (context, question, None)


@given(plain, plain, st.sampled_from(["think", "thinking", "thought", "thoughts", "reasoning", "note"]), st.booleans())
def test_parts_come_back_with_the_words_in_brackets_that_the_user_wrote(context, question, word, closes):
    context = f"{context} [{'/' * closes}{word}] {context}"
    marked = f"Context: {context}\nQuestion: {question}"

    if word == "think" and closes:  # the one mark that a reasoning model may have written
        assert read_sections(marked, *labels_of("en"), original=marked).problem == "labels"
    else:
        assert read_sections(marked, *labels_of("en"), original=marked) == (context, question, None)


# What was dropped

texts = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(
            [
                "I",
                "think",
                "it",
                "is",
                "3.5",
                "Dr.",
                "no.",
                "1,000",
                ".",
                "?",
                "!",
                "\n",
                ",",
                "你好",
                "。",
                "，",
                " ",
                "  ",
                "e.g.",
                "…",
            ]
        )
    ).map(" ".join),
)


@given(texts)
def test_sentences_and_clauses_add_up_to_the_text(text):
    for spans in (sentences(text), clauses(text)):
        assert "".join(text[start:end] for start, end in spans) == text
        assert all(one[1] == other[0] for one, other in pairwise(spans))


@given(texts, texts)
@example("a. b.", "")
def test_an_alignment_covers_the_original_and_its_spans_are_in_it(original, filtered):
    segments = align(original, filtered)

    assert "".join(original[start:end] for start, end, _ in segments) == original
    for start, end in dropped(original, filtered):
        assert 0 <= start < end <= len(original)
        assert original[start:end] == original[start:end].strip()


@given(texts)
def test_nothing_is_dropped_from_a_text_that_is_repeated(text):
    assert dropped(text, text) == []


WORDS = st.sampled_from(
    [
        "ferry",
        "winter",
        "harbour",
        "captain",
        "island",
        "lantern",
        "market",
        "violin",
        "orchard",
        "copper",
        "meadow",
        "thunder",
    ]
)


@pytest.mark.parametrize(
    ("original", "kept", "lost"),
    [
        ("The small 5 crews sail", "The small crews sail", ["5"]),
        ("The small 5 crews sail", "The crews sail", []),  # the word beside it went as well
        (f"The {'long' * 12} 5 crews sail", "The crews sail", []),
    ],
)
def test_a_number_is_lost_where_the_words_beside_it_were_kept(original, kept, lost):
    rest = " from the port of Linz down to Vienna and Krems each day. Who sails?"
    assert [item for breach in breaches(original + rest, kept + rest) for item in breach.items] == lost


@pytest.mark.parametrize(
    ("original", "kept", "lost"),
    [
        ("我们的公司在三个城市有工厂。", "我们的公司在 个城市有工厂。", ["三"]),
        ("我们的公司在三个城市有工厂。", "我们的公司在3个城市有工厂。", []),
        ("我们的公司在三个城市有工厂。", "我们的公司有工厂。", []),
    ],
)
def test_a_number_in_a_run_of_chinese_is_lost_where_what_is_around_it_was_kept(original, kept, lost):
    question = "公司在哪里有工厂？"
    assert [item for breach in breaches(original + question, kept + question) for item in breach.items] == lost


SENTENCES = st.lists(
    st.tuples(WORDS, WORDS, WORDS).filter(lambda words: len(set(words)) == 3), min_size=1, max_size=8, unique=True
).map(lambda rows: [f"The {a} saw the {b} near the {c}." for a, b, c in rows])


@given(SENTENCES, st.data())
def test_deleting_sentences_is_never_a_violation_and_what_is_gone_is_found_exactly(rows, data):
    keep = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    question = "Which animal is described here?"
    kept = [row for row, stays in zip(rows, keep, strict=True) if stays]
    original = " ".join([*rows, question])

    assert breaches(original, " ".join(kept), question) == []
    gone = [original[start:end] for start, end in dropped(original, "\n".join([*kept, question]))]
    assert " ".join(gone) == " ".join(row for row, stays in zip(rows, keep, strict=True) if not stays)


@pytest.mark.parametrize(
    ("original", "filtered", "gone"),
    [
        ("I think it is Sydney. What is it?", "What is it?", ["I think it is Sydney."]),
        ("What is it? I think it is Sydney.", "What is it?", ["I think it is Sydney."]),
        (
            "I think it is Sydney, but what is the capital of Australia?",
            "What is the capital of Australia?",
            ["I think it is Sydney,"],
        ),
        ("Dr. Chen lives here. I like Dr. Chen. Where does she live?", "Dr. Chen lives here. Where does she live?", ["I like Dr. Chen."]),
        ("我觉得是悉尼。首都是哪里？", "首都是哪里？", ["我觉得是悉尼。"]),
        ("我觉得是悉尼，澳大利亚的首都是哪里？", "澳大利亚的首都是哪里？", ["我觉得是悉尼，"]),
        ("A.\n\nB is blue.\n\nC is cold.", "B is blue.", ["A.", "C is cold."]),
        ("Everything stays.", "Everything stays.", []),
        ("All of this goes. Truly.", "", ["All of this goes. Truly."]),
        ("", "", []),
    ],
)  # fmt: skip
def test_what_is_gone_is_found(original, filtered, gone):
    assert [original[start:end] for start, end in dropped(original, filtered)] == gone


def test_a_large_text_takes_no_minutes():
    original = " ".join(f"The {n}th ferry number {n} left harbour {n % 97}." for n in range(20_000))
    filtered = " ".join(f"Ferry number {n} left harbour {n % 97} early." for n in range(0, 20_000, 2))

    assert len(align(original, filtered)) >= 20_000


# Numbers


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,000", "1000"), ("1 000", "1000"), ("1'000", "1,000"), ("1.000", "1,000"), ("3.50", "3.5"), ("3,5", "3.5"),
        ("1,234,567.89", "1234567.89"), ("1.234.567,89", "1234567.89"), ("five", "5"), ("twenty-three", "23"),
        ("one hundred and five", "105"), ("two thousand", "2,000"), ("2.5 million", "2,500,000"), ("$3 million", "3M"),
        ("5k", "5000"), ("two dozen", "24"), ("3 dozen", "36"), ("５", "5"), ("二十三", "23"), ("一百零五", "105"),
        ("两千", "2000"), ("3万", "30000"), ("一亿二千万", "120000000"), ("二〇二四", "2024"), ("1/2", "0.5"),
    ],
)  # fmt: skip
def test_numbers_are_the_same_however_they_are_written(one, other):
    assert values_in(one) & values_in(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("5", "50"), ("1,000", "10,000"), ("2.5 million", "2.5 billion"), ("-5", "5"), ("3.11.4", "3.12.4"), ("五", "六")],
)
def test_numbers_that_differ_are_not_the_same(one, other):
    assert not values_in(one) & values_in(other)


@pytest.mark.parametrize("text", ["1. Milk\n2. Bread", "十分感谢", "千万不要去", "一定", "nothing at all"])
def test_marks_of_a_list_and_figures_of_speech_are_no_numbers(text):
    assert numbers_in(text) == []


@given(st.integers(0, 10**9))
def test_every_integer_is_found_with_and_without_separators(number):
    assert values_in(f"It costs {number} now") & values_in(f"It costs {number:,} now")


@given(st.text())
def test_any_text_can_be_searched_for_numbers(text):
    for number in numbers_in(text):
        assert 0 <= number.start < number.end <= len(text)


# Guards


def pairs(half=None):
    for group in PAIRS:
        if half in (None, group["half"]):
            yield from ((group["original"], text, True) for text in group["faithful"])
            yield from ((group["original"], next(iter(entry.values())), False) for entry in group["unfaithful"])


def judged(half=None):
    """The share of the unfaithful that is caught, and of the faithful that is rejected, with what went wrong."""
    wrong, count = {True: [], False: []}, {True: 0, False: 0}
    for original, text, faithful in pairs(half):
        context, _, question = text.partition(" || ")
        count[faithful] += 1
        if (not breaches(original, said(context), said(question))) != faithful:
            wrong[faithful].append((original, text))
    return 1 - len(wrong[False]) / count[False], len(wrong[True]) / count[True], wrong


def test_there_are_pairs_enough_of_each_kind():
    every = list(pairs())

    assert len(every) >= 150
    assert len(set(every)) == len(every)
    assert sum(faithful for *_, faithful in every) >= 100
    assert sum(1 for _ in pairs("held")) >= 100


def test_the_guards_catch_what_is_unfaithful_and_let_through_what_is_faithful():
    caught, rejected, wrong = judged()  # 99.2 % of 240, 2.0 % of 199

    assert caught >= 0.95, wrong[False]
    assert rejected <= 0.03, wrong[True]


def test_the_guards_do_nearly_as_well_on_pairs_they_were_not_made_with():
    caught, rejected, _ = judged("held")  # 98.3 % of 60, 3.5 % of 57

    assert caught >= 0.95
    assert rejected <= 0.05


@pytest.mark.parametrize("keep", [0, 1, 2, 5])
def test_sentences_that_differ_in_numbers_alone_can_be_deleted(keep):
    rows = [f"Tom paid {n} euros to Mary, but not in cash." for n in (3, 17, 250, 9, 1_000, 42)]
    question = "Who paid most?"

    assert breaches(" ".join([*rows, question]), " ".join(rows[:keep] + rows[keep + 1 :]), question) == []


@given(texts, texts, texts)
def test_any_texts_can_be_compared(original, context, question):
    for breach in breaches(original, context, question):
        assert breach.kind


@given(texts)
def test_a_text_is_true_to_itself(text):
    assert breaches(text, text) == [] or not text.strip()


# Clean texts


@pytest.mark.parametrize(
    ("template", "text", "clean"),
    [
        ("unbiased", "What is the capital of Australia? It has 6 states.", True),
        ("unbiased", "I think it is Sydney. What is the capital?", False),
        ("unbiased", "I  don’t\nthink so. Is it?", False),
        ("unbiased", "What is I thinkable?", True),
        ("unbiased@zh", "澳大利亚的首都是哪里？", True),
        ("unbiased@zh", "我觉得是悉尼。首都是哪里？", False),
        ("relevant", "What is the capital of Australia?", True),
        ("relevant", "Max likes tea. What is the capital of Australia?", False),
    ],
)
def test_a_cheap_test_tells_what_is_clean(template, text, clean):
    assert is_clean(text, load_template(template, method="s2a")) is clean
