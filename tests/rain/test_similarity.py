"""Which texts count as near-identical, and what finding out costs."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from correction_graphs.errors import JudgeError, SettingsError
from correction_graphs.rain import similarity as similarity_module
from correction_graphs.rain.similarity import Similarity, TrigramEmbeddings, as_similarity
from correction_graphs.rain.steps import adrive, drive
from correction_graphs.testing import ToyBackend

PAIRS = yaml.safe_load(Path(__file__).with_name("similarity_pairs.yaml").read_text(encoding="utf-8"))


class Scripted(Embeddings):
    """Returns what it is given, and remembers the batches."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.batches: list[list[str]] = []

    def embed_documents(self, texts: list[str]) -> Any:
        self.batches.append(list(texts))
        if isinstance(self.answer, Exception):
            raise self.answer
        return [[len(text), 1.0] for text in texts] if self.answer is None else self.answer

    def embed_query(self, text: str) -> list[float]:
        raise AssertionError("texts are embedded in batches")


def embedded(similarity: Similarity, *texts: str) -> np.ndarray:
    return drive(similarity.embed(texts), ToyBackend())


def cosine(one: str, other: str) -> float:
    vectors = embedded(as_similarity(), one, other)
    return float(vectors[0] @ vectors[1])


def test_the_default_finds_most_pairs_that_say_the_same_and_hardly_any_others() -> None:
    found = {kind: sum(cosine(*pair) > as_similarity().threshold for pair in PAIRS[kind]) for kind in PAIRS}

    assert found == {"same": 32, "different": 2}
    assert {kind: len(pairs) for kind, pairs in PAIRS.items()} == {"same": 50, "different": 51}


async def test_the_built_in_embedding_is_the_same_in_every_way_of_asking() -> None:
    embeddings, texts = TrigramEmbeddings(), ["It is good.", ""]

    vectors = embeddings.embed_documents(texts)

    assert await embeddings.aembed_documents(texts) == vectors
    assert [await embeddings.aembed_query(text) for text in texts] == vectors
    assert [embeddings.embed_query(text) for text in texts] == vectors


@given(st.text(), st.text())
def test_the_built_in_embedding_is_defined_for_every_text(one: str, other: str) -> None:
    assert cosine(one, one) == pytest.approx(1 if one.split() else 0)
    assert -1.00001 < cosine(one, other) < 1.00001


def test_case_and_white_space_do_not_matter_to_the_built_in_embedding() -> None:
    assert cosine("I am sorry.", "  i  am\nSORRY. ") == pytest.approx(1)
    assert cosine("", "Hello") == 0
    assert cosine("\ud800", "a") < 1  # half a surrogate pair is no text, but no crash either


def test_the_built_in_embedding_is_the_same_in_another_process() -> None:
    code = "from correction_graphs.rain.similarity import *; print(TrigramEmbeddings().embed_query('I am sorry.'))"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )

    assert other.stdout.strip() == str(TrigramEmbeddings().embed_query("I am sorry."))


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_each_text_is_embedded_once_and_new_ones_in_one_batch(mode: str) -> None:
    model = Scripted()
    similarity = as_similarity(model)

    async def embed(*texts: str) -> np.ndarray:
        if mode == "sync":
            return drive(similarity.embed(texts), ToyBackend())
        return await adrive(similarity.embed(texts), ToyBackend())

    first = await embed("a", "bb", "a")
    again = await embed("ccc", "bb")

    assert model.batches == [["a", "bb"], ["ccc"]]
    assert np.allclose(first, [[1, 1] / np.sqrt(2), [2, 1] / np.sqrt(5), [1, 1] / np.sqrt(2)])
    assert np.array_equal(again[1], first[1])
    assert (await embed()).size == 0
    assert len(model.batches) == 2


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity_module, "_REMEMBERED", 3)
    model = Scripted()
    similarity = as_similarity(model)

    embedded(similarity, *"abcde")  # more at once than are remembered
    embedded(similarity, "e", "a")

    assert model.batches == [list("abcde"), ["a"]]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (ValueError("no key"), "'Scripted' raised while embedding 2 texts"),
        ([[1.0, 0.0]], r"shape \(1, 2\) for 2 texts"),
        ([1.0, 2.0], r"shape \(2,\) for 2 texts"),
        ([[1.0, 0.0], [1.0]], "vectors of one length"),
        ([[1.0, 0.0], [math.nan, 0.0]], "not finite"),
        ("none", "vectors of one length"),
    ],
)
def test_an_embedding_model_that_fails_is_named(answer: Any, message: str) -> None:
    model = Scripted(answer)
    similarity = as_similarity(model)

    with pytest.raises(JudgeError, match=message):
        embedded(similarity, "a", "b")
    model.answer = None
    assert embedded(similarity, "a", "b").shape == (2, 2)  # a failure is not remembered


def test_a_vector_of_zeros_is_like_nothing() -> None:
    one, other = embedded(as_similarity(Scripted([[0.0, 0.0], [3.0, 4.0]])), "a", "b")

    assert (one @ other, one @ one, other @ other) == (0, 0, pytest.approx(1))


def test_each_encoder_has_its_own_threshold() -> None:
    fake = DeterministicFakeEmbedding(size=8)

    assert as_similarity(None) is None
    assert as_similarity().threshold == as_similarity(TrigramEmbeddings()).threshold == 0.85
    assert as_similarity(fake).threshold == 0.95
    assert as_similarity(fake, threshold=0.9).threshold == 0.9
    assert as_similarity(given := as_similarity(fake)) is given


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"given": "minilm"}, "`similarity` is 'minilm'; give a LangChain Embeddings, 'trigrams', or None"),
        ({"given": Embeddings}, "give a LangChain Embeddings"),
        ({"threshold": 0.0}, "threshold is 0.0; give a cosine"),
        ({"threshold": 1.5}, "threshold is 1.5; give a cosine"),
        ({"threshold": math.nan}, "threshold is nan; give a cosine"),
        ({"given": Similarity(Scripted(), threshold=0.9), "threshold": 0.8}, "has its own threshold"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        as_similarity(**arguments)
