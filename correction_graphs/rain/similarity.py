"""When two continuations say nearly the same, what was learnt of one counts for the other (RAIN paper, equation 2).

Texts are compared by the angle between their embeddings. Any LangChain `Embeddings` will do. The built-in default knows
letters and no meaning, needs nothing but NumPy, and takes microseconds.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Sequence
from typing import Literal

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from correction_graphs.errors import JudgeError, SettingsError
from correction_graphs.rain.steps import Call, Steps

Vectors = NDArray[np.float32]
SimilarityLike = Embeddings | Literal["trigrams"] | None

_REMEMBERED = 10_000


class TrigramEmbeddings(Embeddings):
    """Embeds a text by its groups of three letters: alike are texts that are spelled alike.

    Each trigram is hashed to one of 384 places, where it adds or subtracts 1; the vector then gets length 1. Case,
    widths and runs of white space do not matter. The same text gives the same vector in every process.

    The threshold was chosen on 101 pairs of short continuations written for it, as the lowest that mistakes no more
    than 2 of 51 pairs that differ ("You should take the pills now." and "You should not take the pills now."). It finds
    32 of 50 pairs that say the same ("I can't help with that." and "I can't help you with that."). The area under the
    curve is 0.95; longer n-grams, mixtures and more places give 0.94 to 0.95.
    """

    SIZE = 384
    THRESHOLD = 0.85

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed several texts."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Embed one text."""
        spaced = f" {' '.join(unicodedata.normalize('NFKC', text).casefold().split())} "
        letters = np.frombuffer(spaced.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
        vector = np.zeros(self.SIZE)
        if len(spaced) > len("  "):  # of an empty text nothing but the edges is left
            trigrams = (letters[:-2] << np.uint64(42)) | (letters[1:-1] << np.uint64(21)) | letters[2:]
            hashes = _mixed(trigrams)
            signs = np.where(hashes >> np.uint64(63), 1.0, -1.0)
            np.add.at(vector, (hashes % np.uint64(self.SIZE)).astype(np.intp), signs)
        length = float(np.linalg.norm(vector))
        result: list[float] = (vector / length if length else vector).tolist()
        return result

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed several texts; at once, since a thread would take longer to start."""
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed one text."""
        return self.embed_query(text)


class Similarity:
    """Embeds texts, each only once, and says from which cosine on two count as near-identical.

    Args:
        embeddings: What embeds them.
        threshold: The cosine, above 0 and at most 1.

    Raises:
        SettingsError: If the threshold is out of range.
    """

    def __init__(self, embeddings: Embeddings, *, threshold: float) -> None:
        if not 0 < threshold <= 1:
            raise SettingsError(f"the similarity threshold is {threshold}; give a cosine above 0 and at most 1")
        self.embeddings = embeddings
        self.threshold = threshold
        self._known: dict[str, Vectors] = {}
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> Steps[Vectors]:
        """Return the vectors of `texts`, one a row, each of length 1 (or 0, where the embedding is nothing but zeros).

        What is new goes to the embedding model as one batch. The last 10,000 texts are remembered.

        Raises:
            JudgeError: If the model raised, or did not return a vector of finite numbers for each text.
        """
        known = {text: vector for text in texts if (vector := self._known.get(text)) is not None}
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            try:
                made = yield Call(
                    lambda: self.embeddings.embed_documents(new), lambda: self.embeddings.aembed_documents(new)
                )
            except Exception as error:
                raise JudgeError(f"the embeddings {self.name!r} raised while embedding {len(new)} texts") from error
            known.update(zip(new, self._unit(made, len(new)), strict=True))
            with self._lock:
                self._known.update((text, known[text]) for text in new)
                while len(self._known) > _REMEMBERED:
                    del self._known[next(iter(self._known))]
        return np.stack([known[text] for text in texts]) if texts else np.empty((0, 0), np.float32)

    @property
    def name(self) -> str:
        """What embeds, for messages."""
        return type(self.embeddings).__name__

    def _unit(self, made: object, count: int) -> Vectors:
        try:
            vectors = np.asarray(made, np.float32)
        except (TypeError, ValueError) as error:
            raise JudgeError(f"the embeddings {self.name!r} did not return vectors of one length: {error}") from error
        if vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():  # noqa: PLR2004
            raise JudgeError(
                f"the embeddings {self.name!r} returned an array of shape {vectors.shape} for {count} texts, or "
                "numbers that are not finite; a vector of finite numbers is needed for each text"
            )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        return unit


def as_similarity(
    given: SimilarityLike | Similarity = "trigrams", *, threshold: float | None = None
) -> Similarity | None:
    """Return what finds near-identical texts.

    Args:
        given: Any LangChain `Embeddings`; "trigrams" for the built-in `TrigramEmbeddings`; a `Similarity`, which is
            returned as it is; None to find none.
        threshold: The cosine above which two texts count as near-identical. By default 0.95 for embeddings of yours, as
            in the official code, and 0.85 for the built-in ones, for the reasons given there.

    Raises:
        SettingsError: If `given` is none of these, or the threshold is out of range.

    The encoder of the official code is all-MiniLM-L6-v2. It needs `pip install langchain-huggingface
    sentence-transformers`, and downloads 90 MB when first used:

        from langchain_huggingface import HuggingFaceEmbeddings

        minilm = HuggingFaceEmbeddings(model_name="sentence-transformers/all-MiniLM-L6-v2")
        similarity = as_similarity(minilm)  # 0.95

    Example:
        ```python
        from correction_graphs.rain.similarity import as_similarity
        from correction_graphs.rain.steps import drive
        from correction_graphs.testing import ToyBackend

        similarity = as_similarity()
        one, same, other = drive(similarity.embed(["I am sorry.", "I am  Sorry.", "Gladly!"]), ToyBackend())
        assert one @ same > similarity.threshold > one @ other
        ```
    """
    if given is None:
        return None
    if isinstance(given, Similarity):
        if threshold is not None:
            raise SettingsError("a `Similarity` has its own threshold; leave `threshold` out, or give the embeddings")
        return given
    embeddings = TrigramEmbeddings() if given == "trigrams" else given
    if not isinstance(embeddings, Embeddings):
        raise SettingsError(f"`similarity` is {given!r}; give a LangChain Embeddings, 'trigrams', or None")
    usual = TrigramEmbeddings.THRESHOLD if isinstance(embeddings, TrigramEmbeddings) else 0.95
    return Similarity(embeddings, threshold=usual if threshold is None else threshold)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread numbers over 64 bits: the finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
