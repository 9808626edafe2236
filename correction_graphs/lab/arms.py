"""Ways to answer a question of the world: the model alone, or with a method; each tells what it spent."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from correction_graphs.backends.llama_cpp import LlamaCppBackend
from correction_graphs.cac import create_cac_graph
from correction_graphs.chat_llama import ChatLlama
from correction_graphs.checkers.base import CheckRequest
from correction_graphs.lab.model import fallible_path
from correction_graphs.lab.world import Request, Situation, World
from correction_graphs.prompts import Template, load_template, templates_folder
from correction_graphs.rain.chat import ChatRain
from correction_graphs.rain.graph import create_rain_graph
from correction_graphs.rain.judge import SelfEvaluation
from correction_graphs.rain.settings import RainSettings
from correction_graphs.results import CacResult, RainResult, S2AResult, Verdict
from correction_graphs.s2a import create_s2a_graph

LONGEST = 64
"""Tokens of an answer, at most."""


class Said(NamedTuple):
    """An answer.

    Attributes:
        text: What was said.
        calls: How often the model was called for it; for RAIN, how many texts were judged.
        forwarded: Tokens that were computed: those in the cache already cost nothing.
        kept: Tokens of the answer.
        result: What the method tells of it; None without a method.
    """

    text: str
    calls: int
    forwarded: int
    kept: int
    result: CacResult | RainResult | S2AResult | None = None


Ask = Callable[[str], Said]
"""From what the user says to an answer."""


class Lab:
    """The model, loaded once for all arms.

    Args:
        model: A GGUF file; by default the one that comes with the package.
        threads: For the arithmetic. A model this small is fastest with one.
    """

    def __init__(self, model: str | os.PathLike[str] | None = None, *, threads: int = 1) -> None:
        self.world = World()
        self.backend = LlamaCppBackend(fallible_path() if model is None else model, n_threads=threads)
        self.greedy = ChatLlama(backend=self.backend, max_tokens=LONGEST, temperature=0)

    def close(self) -> None:
        """Give the memory back."""
        self.backend.close()

    def sampling(self, text: str, draw: int = 0) -> ChatLlama:
        """Return the model that samples, with a seed of its own for each text and draw."""
        return ChatLlama(backend=self.backend, max_tokens=LONGEST, temperature=1, seed=_seed(f"{draw} {text}"))

    def plain(self, *, sampled: bool = False) -> Ask:
        """Return the model alone: the likeliest answer, or a `sampled` one."""

        def ask(text: str) -> Said:
            chat = self.sampling(text) if sampled else self.greedy
            before = self.backend.forwarded_tokens
            reply = chat.invoke(text)
            kept = reply.usage_metadata["output_tokens"] if reply.usage_metadata else 0
            return Said(str(reply.text), 1, self.backend.forwarded_tokens - before, kept)

        return ask

    def s2a(self, template: str, **settings: Any) -> Ask:
        """Return System 2 Attention with a template of the lab, "unbiased" or "relevant", set as `settings` say."""
        return self._through(create_s2a_graph(self.greedy, template=lab_template(template), **settings), "s2a")

    def cac(self, *, chat: ChatLlama | None = None, **settings: Any) -> Ask:
        """Return Checking as Context with the lab's template, one revision unless `settings` say otherwise.

        Args:
            chat: Who answers; by default the model that says what is likeliest.
            **settings: Of `create_cac_graph`.
        """
        graph = create_cac_graph(chat or self.greedy, **{"template": lab_template("fair"), "max_rounds": 1, **settings})
        return self._through(graph, "cac")

    def rain(self, settings: RainSettings | None = None, judge: Any = None) -> Ask:
        """Return RAIN.

        Args:
            settings: By default ours, for replies of `LONGEST` tokens. Each text has a seed of its own.
            judge: By default the model itself, asked with the lab's template.
        """
        judged = SelfEvaluation(lab_template("harmless"), examples=False) if judge is None else judge
        chosen = settings or RainSettings(max_new_tokens=LONGEST)

        def ask(text: str) -> Said:  # with a seed of its own, or one lucky draw would count for all
            seeded = chosen.model_copy(update={"seed": _seed(text)})
            chat = ChatRain(backend=self.backend, judge=judged, settings=seeded)
            return self._through(create_rain_graph(chat), "rain")(text)

        return ask

    def _through(self, graph: Any, method: str) -> Ask:
        def ask(text: str) -> Said:
            before = self.backend.forwarded_tokens
            out = graph.invoke({"messages": [("user", text)]})
            reply, result = out["messages"][-1], out[method]
            calls = result.evaluations if isinstance(result, RainResult) else result.usage.model_calls
            kept = reply.usage_metadata["output_tokens"] if reply.usage_metadata else 0
            return Said(str(reply.text), calls, self.backend.forwarded_tokens - before, kept, result)

        return ask


def lab_template(name: str) -> Template:
    """Return one of the templates in `templates/lab`: ordinary ones, in words that the model was taught.

    Args:
        name: "fair", "unbiased", "relevant" or "harmless".
    """
    methods: dict[str, Any] = {"fair": "cac", "unbiased": "s2a", "relevant": "s2a", "harmless": "rain"}
    return load_template(templates_folder() / "lab" / f"{name}.yaml", method=methods[name])


def _seed(text: str) -> int:
    return zlib.crc32(text.encode())


def oracle_judge(text: str) -> float:
    """Value of a reply by the world's own rule: 1, or -1 where it helps with something harmful."""
    return 1.0 if Request.is_harmless(text) else -1.0


def critic(items: Iterable[Situation], wrong: float = 0.0) -> Callable[[CheckRequest], Verdict]:
    """Return a checker who knows the truth of these situations, and says the contrary with probability `wrong`."""
    truth = {item.text: item for item in items}

    def check(request: CheckRequest) -> Verdict:
        item = truth[str(request.messages[-1].text)]
        rng = random.Random(f"{item.text}{len(request.rounds)}")
        passed, silent = item.is_right(request.answer), item.ambiguous
        group = item.told or rng.choice(item.groups)
        if rng.random() < wrong:
            passed, silent = not passed, not silent
        critique = "The text does not say who it was." if silent else f"The text says that it was the {group}."
        return Verdict(passed=passed, critique=critique)

    return check
