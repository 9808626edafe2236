"""The verdict parser: whatever a critic writes, it never raises, and nothing that is not the critic's own passes.

An input is one byte that picks labels, language and whether the reply was cut off, then the reply.
"""

# ruff: noqa: E501, RUF001 -- a folder of scripts; punctuation of other scripts is the point

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml
from common import must_be_linear, require, text_of

from correction_graphs.checkers.languages import PACKS
from correction_graphs.checkers.sentences import fold
from correction_graphs.checkers.verdicts import read_verdict
from correction_graphs.prompts import Labels

MODULES = [
    "correction_graphs.checkers.verdicts",
    "correction_graphs.checkers.sentences",
    "correction_graphs.messages",
    "correction_graphs.thoughts",
]


class _Setting(NamedTuple):
    labels: Labels
    opposite: Labels
    language: str


def _setting(passing: str, failing: str, language: str, verdict: str = "Verdict") -> _Setting:
    fields = {"verdict": verdict, "critique": "Critique"}
    return _Setting(
        Labels(passing=passing, failing=failing, **fields), Labels(passing=failing, failing=passing, **fields), language
    )


SETTINGS = [
    _setting("correct", "incorrect", "en"),
    _setting("safe", "harmful", "en"),
    _setting("unbiased", "biased", "en"),
    _setting("correct", "incorrect", "xx"),  # a language without words of its own
    _setting("正确", "错误", "zh", "结论"),
    _setting("korrekt", "falsch", "de", "Urteil"),
    _setting("correcto", "incorrecto", "es", "Veredicto"),
    _setting("正しい", "誤り", "ja", "判定"),
]

WORDS = [
    "Verdict: ", "Critique: ", "verdict", "correct", "incorrect", "safe", "harmful", "unbiased", "biased", "正确", "错误",
    "结论：", "korrekt", "falsch", "correcto", "incorrecto", "正しい", "誤り", "The answer is ", "not ", "isn't ", "but ",
    "or ", "because ", "probably ", "<think>", "</think>", "[/think]", "```\n", "~~", "<!--", "-->", "\n> ", "\n- ",
    "**", '{"verdict": "correct"}', '{"passed": true}', '"criteria": [', '"', "“", "”", "「", "」", "'", "`", "\n", "\r",
    "\u2028", "\u200b", "?", "!", "|", "[x] ", "[ ] ", "=> ", "Score: 3/10", "<verdict>", "</verdict>", "\\boxed{", "$",
]  # fmt: skip

# What may close a frame that is put around a text from within, or open one that it then closes.
_FRAMES = re.compile(r"think|thought|reasoning|-->|<!--|~~|```|\u200b|\ufeff", re.IGNORECASE)


_FAULTS = re.compile("|".join(pack.faults for pack in PACKS.values() if pack.faults))


def check(data: bytes) -> None:
    """Read one reply in several frames, and hold the verdicts against each other."""
    if not data:
        return
    at, text = data[0], text_of(data[1:])
    setting, truncated = SETTINGS[at % len(SETTINGS)], at >= 0xC0  # noqa: PLR2004
    verdict = read_verdict(text, setting.labels, language=setting.language, truncated=truncated)
    require(verdict.error is None, "an error", text)
    require(len(verdict.critique) <= 2000, "a critique that is too long", text)  # noqa: PLR2004
    verdict.model_dump_json()  # also goes into checkpoints
    if truncated:
        if verdict.passed is not None:
            whole = _read(text, setting)
            require(whole in (verdict.passed, None), "cut off, it is read as the opposite", text)
        return
    if verdict.passed is None:
        return
    # The key "passed" and words such as "wrong" mean the same under all labels: two passes are never right, two fails
    # may be.
    if "passed" not in fold(text) and (verdict.passed or not _FAULTS.search(fold(text))):
        other = read_verdict(text, setting.opposite, language=setting.language).passed
        require(other is not verdict.passed, "the same verdict with the labels exchanged", text)
    if not verdict.passed:
        return
    require(_says_so(text, setting), "passes without a passing label", text)
    require(_read(f"{text}\n\n{_field(setting)}: {setting.labels.failing[0]}", setting) is not True, "not undone", text)
    if not _FRAMES.search(fold(text)):
        for frame in (_quoted, _thought, _unended, _commented):
            require(_read(frame(text), setting) is not True, f"passes when {frame.__name__[1:]}", text)


def stretch(data: bytes) -> None:
    """Read a long reply made of this one."""
    setting = SETTINGS[data[0] % len(SETTINGS)]
    must_be_linear(lambda text: _read(text, setting), text_of(data[1:]))


def _read(text: str, setting: _Setting) -> bool | None:
    return read_verdict(text, setting.labels, language=setting.language).passed


def _field(setting: _Setting) -> str:
    return setting.labels.verdict[0]


def _says_so(text: str, setting: _Setting) -> bool:
    """Whether a text has a passing label, a failing one that could be negated, or the key whose value is no label."""
    folded = _bare(text)
    passing, failing = (_bare(words[0])[:-1] for words in (setting.labels.passing, setting.labels.failing))
    without = folded.replace(failing, "\0")
    negations = [*map(_bare, PACKS[setting.language].negations.split("|"))] if setting.language in PACKS else []
    return (
        passing in (folded if failing in passing else without)
        or (failing in folded and any(word in folded for word in [*negations, "non", "n't"]))
        or "passed" in folded
    )


def _bare(text: str) -> str:
    """The text in which a label may be looked for, "c-orrect" being one."""
    return re.sub(r"[-\u2010\u2011]", "", fold(text.encode().decode() if text.isascii() else _encodable(text)))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())


def _thought(text: str) -> str:
    return f"<think>{text}</think>"


def _unended(text: str) -> str:
    return f"<think>{text}"


def _commented(text: str) -> str:
    return f"<!-- {text} -->"


def seeds() -> Iterator[bytes]:
    """Yield the replies of the tests' corpus, each with the setting that is most like its own."""
    path = Path(__file__).parent.parent / "tests" / "checkers" / "verdict_corpus.yaml"
    languages = [setting.language for setting in SETTINGS]
    for row in yaml.safe_load(path.read_text(encoding="utf-8")):
        first = {"safe": 1, "unbiased": 2}.get(row["pass"][0].lower(), 0)
        at = (
            first
            if (language := row.get("language", "en")) == "en"
            else languages.index(language)
            if language in languages
            else 3
        )
        yield bytes([at + (0xC0 if row.get("truncated") else 0)]) + row["text"].encode("utf-8", "surrogatepass")
