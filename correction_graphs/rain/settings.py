"""All constants of the search, each with where it comes from.

"Paper" is Li et al., RAIN: Your Language Models Can Align Themselves without Finetuning, ICLR 2024 (arXiv 2309.07124);
"code" is the authors' implementation in the variant for harmlessness, whose constants the paper does not always state.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from correction_graphs.errors import SettingsError, validation_problems

Lengths = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1)]
Texts = tuple[Annotated[str, Field(min_length=1)], ...]
UnitInterval = Annotated[float, Field(ge=0, le=1)]
Values = Annotated[float, Field(ge=-1, le=1)]

_SENTENCE_ENDS = (".", "!", "?", "\n", "。", "！", "？")  # noqa: RUF001  (Chinese)
_PAUSES = (",", ".", "?", ":", ";", "\n")


class RainSettings(BaseModel):
    """How to search. `RainSettings()` is quick; `RainSettings.paper()` is the published algorithm.

    Both are the same search. Ours differs in these constants: a candidate is a segment that ends where a sentence does,
    so it can be judged as it is; one is proposed first, and further ones only when those there were rejected; a
    segment whose value is high enough is committed at once.

    Attributes:
        lengths: Tokens of a candidate, by how many token sets stand before it in the reply; the last holds for all
            that follow. A candidate of one token is no sample: these are the likeliest tokens. Paper: "token sets";
            code: 1, 2, 4, 10. Ours: up to 64.
        ends: A candidate ends early where its text ends with one of these. Code: none. Ours: the ends of sentences.
        min_length: Tokens a candidate has before `ends` apply, so that "1." is no segment of its own, and the judge's
            question is not asked after every few words. Ours: 32.
        candidates: Proposed when a node is expanded: the greedy continuation, and samples. Code: 10. Ours: 1.
        top_k: Samples are drawn from this many of the likeliest tokens. Code: 15.
        temperature: Of the samples, and of the probabilities that become priors. Code: 1 (2 against attacks).
        likelihood: What priors are in proportion to: the "product" of the tokens' probabilities among the `top_k`
            (code), or its geometric mean "per_token" (ours, since segments differ in length).
        max_children: No more candidates are added to a node that has this many. Code: 20. Ours: 12.
        add: Samples drawn at a time when candidates are added. Paper: 1. Ours: 2, computed as one batch. On a GPU a
            batch costs little more than one, so take 4 or 8 there, and as many `leaves`.
        add_below: Candidates are added to a node while the best value among its children is below this. Code: 0. Ours:
            the value that is accepted, 0.
        add_variance: They are added only where the children say nearly the same: the Euclidean norm of the sample
            variance of their embeddings is below this times the candidates' length. Code: 0.03. None: anywhere. Ours.
        exploration: c in the paper's equation 1. Paper: 2.
        puct: "code": (q + 1) / 2 + c p sqrt(n of the parent) / (1 + n). "eq1": q + c p sqrt(sum of the siblings' n) /
            (1 + n), equation 1 of the paper. The two rank alike up to a factor of 2 in c.
        unvisited: The value of a child that was not visited yet: "worst" (-1; code), or the "parent"'s (ours).
        root_uniform: Share of the uniform distribution in the priors of the root's children. Code: 0.25.
        similarity: Siblings whose mean embeddings have a cosine above this share values. Code: 0.95 with the encoder
            all-MiniLM-L6-v2. None: no sharing (ours).
        gamma: Weight of a shared value, times the cosine. Paper, equation 2: 0.2.
        simulation_tokens: Before a leaf is judged, at most so many tokens are sampled from the whole vocabulary at
            temperature 1 until the text ends with one of `pauses`. Code: no limit of its own; paper(): 64. 0: leaves
            are judged as they are (ours).
        pauses: Where a simulation ends. Code: , . ? : ; and a newline.
        leaves: So many leaves are judged together; those in flight count as visited with value -1 meanwhile. Code: 1.
            Ours: 2.
        max_iterations: T of the paper: inner iterations for one token set, those inherited with the subtree included.
            Code: 50. Ours: 6.
        fresh_iterations: At least so many are run even if more were inherited. Code: 15. Ours: 2.
        min_iterations: So many are run before a token set may be accepted. Code: 1, since it looks after an iteration.
            Ours: 0.
        accept_value: V of the paper. The search for a token set ends as soon as the child that would be committed has a
            value above this and more than `accept_visits` visits; 1 for never. Code: 0.8. Ours: 0, rather good
            than bad: small models' soft values stay between -0.4 and 0.4, and hardly ever reach more.
        accept_visits: T_m of the paper. Code: 6. Ours: 0, so the first segment that is good enough is committed.
        commit_by: What is committed: the child with the most "visits" (shared ones included; ties by value), as in
            the paper, or with the best "value" (ties by visits), which is ours: with few visits they say little.
        on_bad_value: What follows when the value function returns NaN or something outside -1 to 1: "raise" a
            `JudgeError`, or count it as "unknown", which is 0.
        max_new_tokens: The reply has no more tokens than this.
        max_seconds: After this time the best text so far is returned. None: no limit.
        max_forwarded_tokens: Likewise, for the tokens that search and judge had to compute.
        stop: The reply ends before any of these texts.
        seed: The same seed gives the same reply.

    Raises:
        SettingsError: If a setting is unknown, outside its range, or does not go with the others.

    Example:
        ```python
        from correction_graphs import RainSettings

        quick = RainSettings(max_new_tokens=200, seed=1)
        published = RainSettings.paper(max_iterations=20)
        assert quick.model_copy(update={"temperature": 0.7}).seed == 1
        assert published.lengths == (1, 2, 4, 10)
        ```
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lengths: Lengths = (64,)
    ends: Texts = _SENTENCE_ENDS
    min_length: int = Field(default=32, ge=1)
    candidates: int = Field(default=1, ge=1, le=256)
    top_k: int = Field(default=15, ge=1, le=1024)
    temperature: float = Field(default=1.0, gt=0, le=100)
    likelihood: Literal["product", "per_token"] = "per_token"
    max_children: int = Field(default=12, ge=1, le=1024)
    add: int = Field(default=2, ge=1, le=256)
    add_below: Values = 0.0
    add_variance: float | None = Field(default=None, gt=0)
    exploration: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    puct: Literal["code", "eq1"] = "eq1"
    unvisited: Literal["worst", "parent"] = "parent"
    root_uniform: UnitInterval = 0.25
    similarity: float | None = Field(default=None, ge=-1, le=1)
    gamma: UnitInterval = 0.2
    simulation_tokens: int = Field(default=0, ge=0, le=4096)
    pauses: Texts = _PAUSES
    leaves: int = Field(default=2, ge=1, le=256)
    max_iterations: int = Field(default=6, ge=1)
    fresh_iterations: int = Field(default=2, ge=1)
    min_iterations: int = Field(default=0, ge=0)
    accept_value: Values = 0.0
    accept_visits: int = Field(default=0, ge=0)
    commit_by: Literal["visits", "value"] = "value"
    on_bad_value: Literal["raise", "unknown"] = "raise"
    max_new_tokens: int = Field(default=512, ge=1)
    max_seconds: float | None = Field(default=None, gt=0)
    max_forwarded_tokens: int | None = Field(default=None, ge=1)
    stop: Texts = ()
    seed: int = Field(default=0, ge=0)

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            problems = validation_problems(error, whole="together", known=type(self).model_fields)
            raise SettingsError(f"RAIN settings: {problems}") from error

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """Return the published algorithm with the official code's constants, but for `changes`.

        It needs embeddings for `similarity` and `add_variance`; set both to None to do without.
        """
        constants: dict[str, Any] = {
            "lengths": (1, 2, 4, 10),
            "ends": (),
            "min_length": 1,
            "candidates": 10,
            "top_k": 15,
            "temperature": 1.0,
            "likelihood": "product",
            "max_children": 20,
            "add": 1,
            "add_below": 0.0,
            "add_variance": 0.03,
            "exploration": 2.0,
            "puct": "code",
            "unvisited": "worst",
            "root_uniform": 0.25,
            "similarity": 0.95,
            "gamma": 0.2,
            "simulation_tokens": 64,
            "pauses": _PAUSES,
            "leaves": 1,
            "max_iterations": 50,
            "fresh_iterations": 15,
            "min_iterations": 1,
            "accept_value": 0.8,
            "accept_visits": 6,
            "commit_by": "visits",
        }
        return cls(**{**constants, **changes})

    @property
    def needs_embeddings(self) -> bool:
        """Whether the search compares texts."""
        return self.similarity is not None or self.add_variance is not None

    def length(self, depth: int) -> int:
        """How many tokens a candidate has at most, after `depth` token sets of the reply."""
        return self.lengths[min(depth, len(self.lengths) - 1)]

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.max_children < self.candidates:
            raise ValueError(
                f"`candidates` is {self.candidates}, but a node may have `max_children` = {self.max_children}"
            )
        if self.fresh_iterations > self.max_iterations:
            raise ValueError(
                f"`fresh_iterations` is {self.fresh_iterations}, above `max_iterations` = {self.max_iterations}"
            )
        if self.min_iterations > self.fresh_iterations:
            raise ValueError(
                f"`min_iterations` is {self.min_iterations}, above `fresh_iterations` = {self.fresh_iterations}, "
                "the fewest that are run"
            )
        if self.accept_visits >= self.max_iterations and self.accept_value < 1:
            raise ValueError(
                f"`accept_visits` is {self.accept_visits}, which `max_iterations` = {self.max_iterations} never exceeds"
            )
        if self.simulation_tokens and not self.pauses:
            raise ValueError("`pauses` is empty, so a simulation would never end; set `simulation_tokens` to 0")
        return self
