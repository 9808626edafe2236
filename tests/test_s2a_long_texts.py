"""What the guards of System 2 Attention do with long texts: time in proportion to the length, and the same verdicts."""

from __future__ import annotations

import gc
import random
import time
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from correction_graphs.filtering import alignment
from correction_graphs.filtering.alignment import Sets, dropped, overlap, sentences
from correction_graphs.filtering.guards import breaches
from correction_graphs.filtering.numbers import numbers_in, values_in
from correction_graphs.filtering.replies import read_single
from correction_graphs.filtering.words import negated_in, stem

QUESTION = "What is the capital of Australia?"
SHAPES = {
    "sentences": "The city has 5 parks and Anna likes it. ",
    "numbers in one line": "1 2,3 ",
    "numbers of their own": "17.25 804 6,300 12/7 ",
    "names in one line": "Aa Bb ",
    "negations": "not not bad ",
    "negations in Chinese": "不好没有",
    "numbers in a run of Chinese": "五个苹果六个梨",
    "a list": "1. Milk\n2. Bread\n",
    "a log": "2024-05-01 12:00:01 ERROR Worker-7 failed with code 502 at 10.0.0.1\n",
    "initials": "A. Dr. e.g. ",
    "marks that close nothing": "“a 'b 「c ",
    "dashes": "- ",
    "commas": "a, ",
    "dots": ".",
    "one number": "7",
    "one word": "a",
    "an address that never ends": "a.b+c-d",
    "base64": None,
}
SMALL = 5_000


def text_of(shape, length):
    unit = SHAPES[shape]
    if unit is None:
        return "".join(random.Random(1).choices("ABCDEFabcdef0123+/", k=length))
    return (unit * (length // len(unit) + 1))[:length]


def seconds(shape, length):
    """How long the guards take for a text of this shape of which nine tenths were kept."""
    text = text_of(shape, length)
    original, kept = f"I guess 5. Data:\n{text}\n{QUESTION}", f"Data:\n{text[: length * 9 // 10]}"
    start = time.process_time()
    breaches(original, kept, QUESTION)
    dropped(original, f"{kept}\n{QUESTION}")
    return time.process_time() - start


@pytest.mark.parametrize("shape", SHAPES)
def test_the_guards_take_time_in_proportion_to_the_length(shape):
    # Four times the length takes four times as long, and sixteen where the time grows with the square.
    once = min(seconds(shape, SMALL) for _ in range(3))
    ratios = ((seconds(shape, 4 * SMALL) + 1e-3) / (once + 1e-3) for _ in range(3))

    assert any(ratio < 8 for ratio in ratios)


# What is found in a short text is found in a long one

LINES = [f"Row {n} of the table tells that depot {n} sold {n + 0.5} tons" for n in range(1_200)]


def changed_in_the_middle(old, new):
    text = ", ".join(LINES)
    assert text.count(old) == 1
    return f"I guess a lot. {text}. Which depot sold most?", f"{text.replace(old, new)}."


@pytest.mark.parametrize(
    ("old", "new", "kind", "item"),
    [
        ("sold 1000.5 tons", "sold 7777777 tons", "added", "7777777"),
        ("depot 1000 sold", "depot Rotterdam sold", "added", "Rotterdam"),
        ("depot 1000 sold", "depot 1000 not sold", "negation", "sold"),
        ("sold 1000.5 tons", "sold “a few more” tons", "added", "a few more"),
        ("sold 1000.5 tons", "sold tons", "lost", "1000.5"),
    ],
)
def test_one_change_in_a_clause_of_a_long_sentence_is_found(old, new, kind, item):
    found = {
        breach.kind: breach.items for breach in breaches(*changed_in_the_middle(old, new), "Which depot sold most?")
    }

    assert any(item in each for each in found[kind])


def test_a_long_text_without_its_opinion_is_true_to_the_original():
    original, kept = changed_in_the_middle("depot 1000 sold", "depot 1000 sold")

    assert breaches(original, kept, "Which depot sold most?") == []
    assert [original[start:end] for start, end in dropped(original, f"{kept}\nWhich depot sold most?")] == [
        "I guess a lot."
    ]


def test_a_long_text_of_quotations_and_links_may_be_kept_in_part():
    rows = [f'“Saying {n}” is by "author {n}", see https://example.org/{n} or a{n}@example.org.' for n in range(500)]

    assert breaches(f"{' '.join(rows)} Who said most?", " ".join(rows[::2]), "Who said most?") == []


def test_more_words_to_look_for_than_there_is_time_are_reported(monkeypatch):
    monkeypatch.setattr("correction_graphs.filtering.texts._MOST_SEARCHED", 100)
    original = f"Words: {' '.join(f'word{n}' for n in range(100))}. Which is the best?"
    kept = " ".join(f"“word{n}”" for n in range(90))

    found = breaches(original, kept, "Which is the best?")

    assert any(breach.kind == "added" and "word89" in breach.items for breach in found)


# Numbers too long to reckon with


@pytest.mark.parametrize("digits", ["7" * 5_000, "三" * 5_000, f"{'7' * 5_000}/{'3' * 5_000}"])
def test_a_number_of_thousands_of_digits_is_the_same_only_if_it_is_written_so(digits):
    original = f"I guess 5. The number is {digits}. {QUESTION}"

    assert breaches(original, f"The number is {digits}.", QUESTION) == []
    assert [breach.kind for breach in breaches(original, f"The number is {digits}{digits[0]}.", QUESTION)] != []


def test_a_number_that_decimals_cannot_hold_is_itself():
    assert values_in("7" * 1_000_001) == {"7" * 1_000_001}


def test_a_list_of_many_numbers_has_no_marks_among_them():
    text = "\n".join(f"{n}. It costs {n + 1_000} euros" for n in range(1, 99))

    assert [text[number.start : number.end] for number in numbers_in(text)] == [str(n + 1_000) for n in range(1, 99)]
    assert values_in(text) == {str(n + 1_000) for n in range(1, 99)}


# A reply that thinks without end


def test_a_reply_of_nothing_but_marks_of_thought_is_read_at_once():
    start = time.process_time()
    reply = read_single("<think>" * 20_000 + "</reasoning>" + QUESTION)

    assert reply.context == QUESTION
    assert time.process_time() - start < 2  # each mark looked for its own end would take a minute


# The parts


@given(st.lists(st.sets(st.sampled_from("abcdefgh")), max_size=30), st.sets(st.sampled_from("abcdefghij")))
def test_the_set_with_most_of_some_words_is_found(sets, words):
    best, count = Sets(sets).best(words)

    if best is None:
        assert count == 0
        assert all(words.isdisjoint(each) for each in sets)
    else:
        wanted = max(range(len(sets)), key=lambda at: (overlap(words, sets[at]), -len(sets[at])))
        assert (best, count) == (wanted, len(words & sets[wanted]))


@pytest.mark.parametrize("most", [0, 2**26])
def test_what_is_remembered_of_sets_is_bounded_and_changes_nothing(monkeypatch, most):
    monkeypatch.setattr(alignment, "_MOST_BYTES", most)
    words = [str(n) for n in range(12)]
    rows = [{word for n, word in enumerate(words) if at % (n + 2)} for at in range(200)]
    sets, asked = Sets(rows), [set(words[start:]) for start in range(12)]

    for _ in range(2):
        for each in asked:
            wanted = max(range(len(rows)), key=lambda at: (len(each & rows[at]), -len(rows[at])))
            assert sets.best(each) == (wanted, len(each & rows[wanted]))
    assert len(sets._masks) == (1 if most == 0 else 12)


def test_of_many_sets_that_have_the_same_words_the_shortest_is_found():
    sets = [{"worker", "failed", "code", str(n), *("more",) * (n != 700)} for n in range(1_000)]

    assert Sets(sets).best({"worker", "failed", "code"}) == (700, 3)


def test_initials_in_a_row_are_one_sentence():
    text = "A. B. C. " * 50 + "Chen lives here. Dr. Wu does not."

    assert len(sentences(text)) == 2


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("It is not good.", {"good"}, {"good"}),
        ("Ships sail here not not.", {"sail"}, {"sail"}),
        ("Ships never sail. Not no.. Boats do.", {"sail"}, {"sail", "ship"}),
        ("no.\n.x not cold", {"cold", "x"}, {"cold", "x"}),
        ("not 我喜欢苹果", {"我喜欢苹果"}, {"我喜欢苹果"}),
    ],
)
def test_what_is_negated(text, near, far):
    assert (negated_in(text), negated_in(text, near=False)) == (near, far)


def test_long_words_are_not_remembered():
    for length in range(50, 60):
        gone = weakref.ref(word := Word("a" * length + "ing"))
        assert stem(word) == "a" * (length - 1)
        del word
        gc.collect()
        assert gone() is None


class Word(str):
    """A word that tells whether it is still held."""

    __slots__ = ("__weakref__",)
