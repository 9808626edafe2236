"""LangGraph graphs in which a language model checks, filters or rewinds its own answer before you see it.

Everything a user needs is importable from here. A name loads its module when it is first used, so that importing the
package costs nothing and an optional dependency is needed only by what is built on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from correction_graphs._version import __version__

if TYPE_CHECKING:
    from correction_graphs.budget import Budget
    from correction_graphs.cac import build_cac_graph, create_cac_graph
    from correction_graphs.chat_llama import ChatLlama
    from correction_graphs.checkers.adapters import as_checker
    from correction_graphs.checkers.base import CheckRequest
    from correction_graphs.checkers.code import CodeChecker
    from correction_graphs.checkers.critic import LLMCritic
    from correction_graphs.checkers.grounding import GroundingChecker
    from correction_graphs.checkers.human import HumanChecker
    from correction_graphs.checkers.jury import Jury
    from correction_graphs.errors import CorrectionError
    from correction_graphs.middleware.cac import CaCMiddleware
    from correction_graphs.middleware.s2a import S2AMiddleware
    from correction_graphs.prompts import Template, load_template
    from correction_graphs.rain.chat import ChatRain
    from correction_graphs.rain.graph import build_rain_graph, create_rain_graph
    from correction_graphs.rain.settings import RainSettings
    from correction_graphs.results import CacResult, RainResult, Round, S2AResult, Usage, Verdict
    from correction_graphs.s2a import build_s2a_graph, create_s2a_graph

# Type checkers and editors read the imports above and `__all__`; at run time `_HOMES` counts. A test compares them.
__all__ = [
    "Budget",
    "CaCMiddleware",
    "CacResult",
    "ChatLlama",
    "ChatRain",
    "CheckRequest",
    "CodeChecker",
    "CorrectionError",
    "GroundingChecker",
    "HumanChecker",
    "Jury",
    "LLMCritic",
    "RainResult",
    "RainSettings",
    "Round",
    "S2AMiddleware",
    "S2AResult",
    "Template",
    "Usage",
    "Verdict",
    "__version__",
    "as_checker",
    "build_cac_graph",
    "build_rain_graph",
    "build_s2a_graph",
    "create_cac_graph",
    "create_rain_graph",
    "create_s2a_graph",
    "load_template",
]

_HOMES = {
    "Budget": "correction_graphs.budget",
    "CaCMiddleware": "correction_graphs.middleware.cac",
    "CacResult": "correction_graphs.results",
    "ChatLlama": "correction_graphs.chat_llama",
    "ChatRain": "correction_graphs.rain.chat",
    "CheckRequest": "correction_graphs.checkers.base",
    "CodeChecker": "correction_graphs.checkers.code",
    "CorrectionError": "correction_graphs.errors",
    "GroundingChecker": "correction_graphs.checkers.grounding",
    "HumanChecker": "correction_graphs.checkers.human",
    "Jury": "correction_graphs.checkers.jury",
    "LLMCritic": "correction_graphs.checkers.critic",
    "RainResult": "correction_graphs.results",
    "RainSettings": "correction_graphs.rain.settings",
    "Round": "correction_graphs.results",
    "S2AMiddleware": "correction_graphs.middleware.s2a",
    "S2AResult": "correction_graphs.results",
    "Template": "correction_graphs.prompts",
    "Usage": "correction_graphs.results",
    "Verdict": "correction_graphs.results",
    "as_checker": "correction_graphs.checkers.adapters",
    "build_cac_graph": "correction_graphs.cac",
    "build_rain_graph": "correction_graphs.rain.graph",
    "build_s2a_graph": "correction_graphs.s2a",
    "create_cac_graph": "correction_graphs.cac",
    "create_rain_graph": "correction_graphs.rain.graph",
    "create_s2a_graph": "correction_graphs.s2a",
    "load_template": "correction_graphs.prompts",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(_unknown(name), name=name)
    from importlib import import_module  # noqa: PLC0415  # the package itself imports next to nothing

    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _unknown(name: str) -> str:
    """Return what to say about a name that is not here."""
    text = f"module {__name__!r} has no attribute {name!r}"
    if name.startswith("__"):  # asked for by tools that look whether it is there, not by people
        return text
    from difflib import get_close_matches  # noqa: PLC0415

    if close := get_close_matches(name, __all__, n=1):
        return f"{text}; did you mean {close[0]!r}?"
    return f"{text}; its public names are {', '.join(sorted(_HOMES))}; a submodule is imported by its own name"
