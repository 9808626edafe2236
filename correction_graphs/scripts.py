"""Scripts in which a word has no space beside it, so that a character, or a pair of them, is taken for one."""

from __future__ import annotations

import re

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
"""Kana, Han and Hangul, as ranges for a pattern."""

IS_CJK = re.compile(rf"[{CJK}]")
