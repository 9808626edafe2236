"""Whether a filtered text is true to the original: nothing added, no number or negation lost, and the question kept.

The guards judge by words alone. They are strict about what can change an answer (numbers, names, quotations, "not", the
question), and leave a filter free in how it joins what it keeps.
"""

# ruff: noqa: RUF001 -- punctuation of other scripts is the point

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple

from correction_graphs.filtering.alignment import Sets, changed, clauses, overlap, sentences
from correction_graphs.filtering.numbers import Number, numbers_in, values_in
from correction_graphs.filtering.words import (
    AUXILIARIES,
    CJK,
    QUESTION_WORDS,
    REQUESTS,
    STARTERS,
    STOP,
    asks,
    content_of,
    is_opinion,
    negated_in,
    negations_in,
    spans_of,
    stem,
    words_of,
)

Kind = Literal["labels", "empty", "cut", "added", "lost", "question", "negation", "longer"]


class Breach(NamedTuple):
    """What is wrong with a filtered text.

    Attributes:
        kind: "labels": its parts cannot be told apart. "empty": there is nothing. "cut": it broke off. "added": a
            number, name, quotation or statement is not in the original, or stands with something else there. "lost": a
            number or name is missing in what was kept. "question": the question is not asked any more. "negation": one
            was lost or added. "longer": it has grown.
        items: The words that are meant, where there are any.
    """

    kind: Kind
    items: tuple[str, ...] = ()


def breaches(original: str, context: str, question: str = "", *, whole: bool = True) -> list[Breach]:
    """Return what is wrong with a filtered text; an empty list if it may stand in for the original.

    Args:
        original: What was filtered.
        context: What the filter kept, or all of it where it is one text.
        question: What the filter took for the question, if it says so separately.
        whole: Whether the question must be in it: not so in a document.
    """
    context, question = _thinned(context), _thinned(question)
    before, after = _Text(_thinned(original)), _Text("\n".join(part for part in (context, question) if part.strip()))
    if not after.text.strip():
        return [Breach("empty")]
    if _squeezed(after.text) == _squeezed(before.text):
        return []
    was, now = changed(before.text, after.text)
    kept = list(_kept_clauses(was, now))
    found = [
        Breach("longer", ()) if _is_longer(before, after) else None,
        _breach("added", [*_new_numbers(before, after), *_new_names(before.text, after.text)]),
        _breach("added", _new_quotes(before.text, after.text)),
        _breach("added", _new_sentences(before, now)),
        _breach("added", _swapped(before, now)),
        _breach("lost", _lost_details(kept, after)),
        _breach("negation", _changed_negations(before.text, after.text, kept, now)),
        _breach("question", _lost_questions(before.text, after, question)) if whole else None,
    ]
    return _merged(breach for breach in found if breach)


class _Text:
    """A text, and what is in it: looked for when it is asked for, and only once."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def content(self) -> list[str]:
        return content_of(self.text)

    @cached_property
    def about(self) -> frozenset[str]:
        return frozenset(self.content)

    @cached_property
    def numbers(self) -> list[Number]:
        return numbers_in(self.text)

    @cached_property
    def values(self) -> set[str]:
        return values_in(self.text, self.numbers)

    @cached_property
    def keys(self) -> set[str]:
        return set(map(_key, words_of(self.text)))

    @cached_property
    def lengths(self) -> set[int]:
        return set(map(len, self.keys))

    @cached_property
    def longest(self) -> int:
        return max(self.lengths, default=0)

    @cached_property
    def pairs(self) -> set[str]:
        """Every character, and every two that stand together."""
        return {*self.text, *map("".join, pairwise(self.text))}

    @cached_property
    def letters(self) -> _Haystack:
        return _Haystack(self.text, otherwise=True)

    def says(self, word: str) -> bool:
        if not _IS_CJK.match(word):
            return word in self.keys
        return word[:2] in self.pairs and (len(word) <= 2 or word in self.letters)  # noqa: PLR2004


class _Haystack:
    """A text in which many words are looked for, letter by letter.

    One search takes as long as the text is; so when all searches together took long, the answer for what is left is
    `otherwise`, chosen so that the guards report it.
    """

    def __init__(self, text: str, known: Iterable[str] = (), *, otherwise: bool = False) -> None:
        self._text = text
        self._otherwise = otherwise
        self._found = dict.fromkeys(known, True)
        self._left = _MOST_SEARCHED

    def __contains__(self, word: object) -> bool:
        if not isinstance(word, str):
            return False
        if word not in self._found:
            if self._left <= 0:
                return self._otherwise
            at = self._text.find(word)
            self._left -= len(self._text) if at < 0 else at
            self._found[word] = at >= 0
        return self._found[word]


_MOST_SEARCHED = 500_000_000


# Nothing added


def _is_longer(original: _Text, filtered: _Text) -> bool:
    return len(filtered.content) > len(original.content) * 1.25 + 8


def _new_numbers(original: _Text, filtered: _Text) -> list[str]:
    new = [
        filtered.text[number.start : number.end]
        for number in filtered.numbers
        if not number.vague and not number.values & original.values
    ]
    if not new:
        return []
    folded = _Haystack(original.text.casefold())
    return [each for each in dict.fromkeys(new) if any(map(str.isdigit, each)) or each.casefold() not in folded]


_CAPITAL = re.compile(rf"(?<![\w'’])[^\W\d_{CJK}][^\W_{CJK}]*(?:['’-][^\W_{CJK}]+)*")
_OPENS = re.compile(r"(?:\A|[.!?…:;\n\"“”‘(\[*•>–—]|[-–]\s)\s*[\"“‘'(*_]*\Z")


def names_in(text: str) -> Iterator[tuple[str, int, bool]]:
    """Yield the words that are written like names, where they begin, and whether they open a sentence."""
    indent = len(text) - len(text.lstrip())
    for match in _CAPITAL.finditer(text):
        word, start = match[0], match.start()
        if not word[0].isupper() or word.split("'")[0].split("’")[0] == "I":
            continue
        opens = (
            start <= indent
            or (
                not (text[start - 1] == " " and text[start - 2].isalnum())  # as most often; quicker than a search
                and _OPENS.search(text[max(0, start - 8) : start]) is not None
            )
        )
        yield _POSSESSIVE.sub("", word) if word[-1] in "'’s" else word, start, opens


_POSSESSIVE = re.compile(r"['’]s?\Z")


def _is_ordinary(word: str) -> bool:
    folded = word.casefold()
    return (
        folded in _ORDINARY
        or "n't" in folded.replace("’", "'")
        or (folded.endswith(("ly", "ing")) and word[1:].islower())
    )


_ORDINARY = STOP | STARTERS | REQUESTS | QUESTION_WORDS | AUXILIARIES


def _new_names(original: str, filtered: str) -> list[str]:
    folded = {_ascii(word).removesuffix("'s") for word in set(re.split(r"[^\w'’]+", original))}
    folded |= {part for word in folded for part in re.split(r"['’_]", word)}
    stems = {stem(word) for word in folded}
    new = []
    for word, opens in dict.fromkeys((word, opens) for word, _, opens in names_in(filtered)):
        key = _ascii(word)
        if word in _MONTHS:
            if not re.search(rf"\b{word}\b", original):
                new.append(word)
            continue
        if key in folded or stem(key) in stems or (opens and _is_ordinary(word)) or key in STOP:
            continue
        if all(_ascii(part) in folded for part in re.split(r"[-'’]", word)) or _is_derived(key, folded):
            continue
        new.append(word)
    return new + _new_han_names(original, filtered)


_MONTHS = ("May", "March")  # which are other words, too


_SUFFIXES = ("an", "ian", "ean", "ish", "ese", "ic", "er", "ers", "s", "es", "i")


def _is_derived(name: str, known: set[str]) -> bool:
    """Whether it is another form of a known word, as Australian is of Australia, and Italian of Italy."""
    return not known.isdisjoint(_origins(name)) or not known.isdisjoint(_derivations(name))


def _derivations(word: str) -> Iterator[str]:
    if len(word) >= _LONG:
        yield word + "n"
        for root in (word, word[:-1]) if word[-1] in _VOWELS else (word,):
            yield from (root + suffix for suffix in _SUFFIXES)


def _origins(word: str) -> Iterator[str]:
    roots = [word.removesuffix(suffix) for suffix in _SUFFIXES if word.endswith(suffix)]
    roots += [root + vowel for root in roots for vowel in _VOWELS] + ([word[:-1]] if word.endswith("n") else [])
    return (root for root in roots if len(root) >= _LONG)


_VOWELS = "aeiouy"


_LONG = 5


_SURNAMES = (
    "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦许何吕施张孔曹严华金魏陶姜谢邹苏潘葛范彭鲁韦马方俞任袁柳唐罗薛雷贺倪汤郝史顾"
    "孟黄萧尹姚邵汪毛戴宋庞熊纪舒项祝董梁杜阮蓝席季贾路江童郭梅林钟徐邱骆高夏蔡田胡万卢莫丁邓洪石崔龚程陆翁荀惠曲封靳"
    "段富巫焦侯班仰仲宫宁甘武刘景詹龙叶白蒲从鄂卓蔺乔"
)
_HAN_NAME = re.compile(
    rf"[小老阿][{_SURNAMES}明红刚强华丽芳军伟美亮兰玲平燕宝虎东光]|"
    rf"(?<![\u4e00-\u9fff])[{_SURNAMES}][\u4e00-\u9fff]{{1,2}}(?=说|有|在|认|觉|给|和|的|比|把|被|买|去|是|与|卖|从|又|还|先生|女士|老师|教授)|"
    rf"[{_SURNAMES}](?:先生|女士|老师|教授|医生|同学|总|经理)|[\u4e00-\u9fff]{{1,6}}·[\u4e00-\u9fff]{{1,6}}|"
    r"[\u4e00-\u9fff](?!城|省|县)[\u4e00-\u9fff](?=市|省|县|大学|公司)|"
    r"北京|上海|天津|重庆|广州|深圳|杭州|南京|苏州|武汉|成都|西安|长沙|郑州|青岛|大连|沈阳|哈尔滨|厦门|福州|昆明|贵阳|南宁|海口|拉萨|兰州|"
    r"太原|济南|合肥|南昌|香港|澳门|台北|台湾|广东|广西|湖南|湖北|河南|河北|山东|山西|江苏|浙江|安徽|福建|江西|四川|云南|贵州|陕西|甘肃|青海|"
    r"新疆|西藏|内蒙古|宁夏|海南|吉林|辽宁|黑龙江|中国|美国|英国|法国|德国|日本|韩国|俄罗斯|印度|巴西|加拿大|澳大利亚|新西兰|意大利|西班牙|"
    r"东京|纽约|伦敦|巴黎|柏林|悉尼|墨尔本|堪培拉|罗马|莫斯科|首尔|周[一二三四五六日]|星期[一二三四五六日]"
)


def _new_han_names(original: str, filtered: str) -> list[str]:
    names = dict.fromkeys(_HAN_NAME.findall(filtered) if _IS_CJK.search(filtered) else ())
    if not names:
        return []
    there = _Haystack(original, _HAN_NAME.findall(original))
    return [name for name in names if name not in there]


_OPENING = re.compile(r"[“\"「『《«`]|(?<!\w)[‘']")
_CLOSING = {
    mark: re.compile(rf"[{closers}\n]")
    for mark, closers in zip("“\"「『《«`‘'", ("”", '"', "」", "』", "》", "»", "`", "'’", "'’"), strict=True)
}
# What is no link is read through in one go, up to the next link.
_VERBATIM = re.compile(r"(https?://[^\s<>\"'）)，。]+|[\w.+-]+@[\w-]+\.[\w.]+)|[\w.+-]+?(?=https?://|[^\w.+-]|\Z)")


def _new_quotes(original: str, filtered: str) -> list[str]:
    said = dict.fromkeys([*_quotes(filtered), *_links(filtered)])
    if not said:
        return []
    known = {*_quotes(original), *_links(original)}
    new = [each for each in said if each not in known]
    text = _Haystack(_bare(original) if new else "")
    return [each for each in new if _bare(each) not in text]


def _quotes(text: str) -> Iterator[str]:
    """Yield what stands between marks of quotation in one line."""
    ends: dict[str, int] = {}  # the next closing mark or line's end, by opening mark: none is looked for twice
    until = 0
    for mark in _OPENING.finditer(text):
        kind, start = mark[0], mark.end()
        if mark.start() < until:
            continue
        if ends.get(kind, 0) < start:
            closing = _CLOSING[kind].search(text, start)
            ends[kind] = closing.start() if closing else len(text)
        end = ends[kind]
        if end == start or text[end : end + 1] in ("", "\n"):
            continue
        if kind in "‘'" and (end - start < 2 or _IN_WORD.match(text, end + 1)):  # noqa: PLR2004
            continue
        until = end + 1
        yield text[start:end]


_IN_WORD = re.compile(r"\w")


def _links(text: str) -> list[str]:
    return [link.rstrip(".") for link in _VERBATIM.findall(text) if link]


def _new_sentences(original: _Text, now: list[str]) -> list[str]:
    """Sentences most of whose words are not in the original."""
    new = []
    for sentence in dict.fromkeys(now):
        words = set(content_of(sentence))
        strange = words - original.about
        if len(strange) > max(3, 0.5 * len(words)) or (len(strange) == len(words) > 2):  # noqa: PLR2004
            new.append(sentence.strip())
    return new


# Nothing exchanged


_REACH = 4


_NEARNESS = (12, 6, 4, 3)  # twelfths: 1, 1/2, 1/3, 1/4

_KINDS = ("number", "name")
_Tokens = list[tuple[str, str]]
"""Words of a clause, each after its kind: one of these, or "word"."""


class _Place(NamedTuple):
    """Where a number or name stands: the words before it and after it, nearest first."""

    key: str
    before: tuple[str, ...]
    after: tuple[str, ...]


class _Likeness:
    """How much places have in common with a place; near words count most."""

    def __init__(self, places: list[_Place]) -> None:
        self._count = len(places)
        self._having: dict[tuple[bool, str], list[tuple[int, int]]] = {}
        for at, place in enumerate(places):
            for side, words in enumerate((place.before, place.after)):
                for rank, word in enumerate(words):
                    self._having.setdefault((bool(side), word), []).append((at, rank))

    def to(self, place: _Place) -> list[int]:
        """Return the likeness of each, in twelfths."""
        likeness = [0] * self._count
        for side, words in enumerate((place.before, place.after)):
            for rank, word in enumerate(words):
                for at, other in self._having.get((bool(side), word), ()):
                    likeness[at] += _NEARNESS[max(rank, other)]
        return likeness


def _swapped(original: _Text, sentences_now: list[str]) -> list[str]:
    """Numbers and names that stand where another one stood."""
    now = list(_tokens(_Text("\n".join(sentence.strip() for sentence in sentences_now))))
    counts = Counter(kind for clause in now for kind, _ in clause)
    most = {kind: _MOST_PLACES // counts[kind] for kind in _KINDS if counts[kind]}
    if not most:
        return []
    old: list[_Tokens] = []
    there: Counter[str] = Counter()
    for clause in _tokens(original):
        old.append(clause)
        there.update(kind for kind, _ in clause)
        if all(there[kind] > limit for kind, limit in most.items()):
            return []
    new: list[str] = []
    for kind, limit in most.items():
        if there[kind] <= limit:
            new += _exchanged(_places(old, kind), _places(now, kind))
    return new


def _exchanged(old: list[_Place], now: list[_Place]) -> list[str]:
    by_key: dict[str, list[int]] = {}
    for at, place in enumerate(old):
        by_key.setdefault(place.key, []).append(at)
    likeness = _Likeness(old)
    moved: dict[str, set[str]] = {}
    lead: dict[str, int] = {}  # by how much another's place is more like it, at the least
    for place in now:
        if place.key not in by_key:
            continue
        scores = likeness.to(place)
        best = max(scores)
        ahead = best - max(scores[at] for at in by_key[place.key])
        lead[place.key] = min(ahead, lead.get(place.key, ahead))
        if ahead > _MARGIN:
            moved.setdefault(place.key, set()).add(old[scores.index(best)].key)
    in_turn = {key for key, others in moved.items() if any(key in moved.get(other, ()) for other in others)}
    clear = [key for key in moved if key not in in_turn and lead[key] >= _CLEAR]
    return [*(key for key in moved if key in in_turn), *clear]


_MARGIN = 12 * 0.3
_MOST_PLACES = 250_000  # of a long text that was all written anew; to compare them would take seconds
_CLEAR = 12 * 1.4


def _places(clauses_read: list[_Tokens], kind: str) -> list[_Place]:
    """Return the different places of all numbers, or of all names."""
    found: dict[_Place, None] = {}
    for tokens in clauses_read:
        for at, (each, key) in enumerate(tokens):
            if each == kind:
                before = dict.fromkeys(word for _, word in reversed(tokens[max(0, at - _REACH) : at]) if word != key)
                after = dict.fromkeys(word for _, word in tokens[at + 1 : at + 1 + _REACH] if word != key)
                found[_Place(key, tuple(before), tuple(after))] = None
    return list(found)


_TOKEN = re.compile(rf"[{CJK}]|[^\W_{CJK}]+(?:['’][^\W_{CJK}]+)*")


def _tokens(read: _Text) -> Iterator[_Tokens]:
    """Yield the words of each clause that say something, each as what it is."""
    text = read.text
    numbers = [number for number in read.numbers if not number.vague]
    names = {
        start: name
        for name, start, opens in names_in(text)
        if not (opens and _is_ordinary(name)) and name.casefold() not in STOP
    }
    if _IS_CJK.search(text):
        names.update((match.start(), match[0]) for match in _HAN_NAME.finditer(text))
    passed = 0
    for start, end in (clause for sentence in sentences(text) for clause in clauses(text, *sentence)):
        tokens: _Tokens = []
        until = start
        while passed < len(numbers) and numbers[passed].start < start:
            passed += 1
        for match in _TOKEN.finditer(text, start, end):
            at = match.start()
            if at < until:
                continue
            while passed < len(numbers) and numbers[passed].end <= at:
                passed += 1
            if passed < len(numbers) and numbers[passed].start <= at:
                until = numbers[passed].end
                tokens.append(("number", min(numbers[passed].values)))
            elif at in names:
                until = at + len(names[at])
                tokens.append(("name", names[at].casefold()))
            elif (word := match[0].casefold()) not in STOP or word in _RELATIONS:
                tokens.append(("word", stem(word)))
        yield tokens


_RELATIONS = frozenset(["than", "by", "to", "from", "before", "after", "over", "under"])


# Nothing lost of what was kept


def _kept_clauses(was: list[str], now: list[str]) -> Iterator[tuple[str, _Text]]:
    """Yield the clauses that were kept in other words, each with the sentence that has most of it."""
    if not now or len(was) * len(now) > _MOST_SENTENCES:
        return
    texts = [_Text(sentence) for sentence in now]
    sets = Sets([text.about for text in texts])
    for sentence in was:
        for start, end in clauses(sentence):
            text = sentence[start:end]
            content = {word for word in content_of(text) if not word.isdigit()}
            if len(content) < (1 if negations_in(text) else 2):
                continue
            best, count = sets.best(content)
            if best is not None and count / len(content) >= _KEPT:
                yield text, texts[best]


_MOST_SENTENCES = 1_000_000
_KEPT = 0.6


def _lost_details(kept: list[tuple[str, _Text]], filtered: _Text) -> list[str]:
    """Numbers that are missing between words that were kept."""
    lost = []
    for clause, sentence in kept:
        said = {word for word in content_of(clause) if not word[0].isdigit()}
        if overlap(said, sentence.about) < _WHOLE:
            continue
        missing = [n for n in numbers_in(clause) if not n.vague and not n.values & filtered.values]
        if missing and not is_opinion(clause):
            around = _Around(clause)
            lost += [clause[n.start : n.end] for n in missing if around.is_in(sentence, n.start, n.end)]
    return lost


_WHOLE = 0.8


class _Around:
    """The words around the numbers of a clause that say something; "May" does, and "may" does not."""

    def __init__(self, clause: str) -> None:
        self._clause = clause
        self._spans = spans_of(clause)
        self._starts = [start for start, _ in self._spans]
        self._telling = [at for at, span in enumerate(self._spans) if self._tells(clause[slice(*span)])]

    def is_in(self, text: _Text, start: int, end: int) -> bool:
        """Whether a text has the nearest of them before `start` and after `end`, if there are such."""
        return self._says(text, self._before(start)) and self._says(text, self._after(end))

    def _before(self, cut: int) -> tuple[int, int] | None:
        at = bisect_left(self._starts, cut) - 1  # the last that begins before
        if at >= 0 and self._spans[at][1] > cut:
            if self._tells_in_part(part := (self._starts[at], cut)):
                return part
            at -= 1
        index = bisect_right(self._telling, at) - 1
        return self._spans[self._telling[index]] if index >= 0 else None

    def _after(self, cut: int) -> tuple[int, int] | None:
        at = bisect_left(self._starts, cut)  # the first that begins there or later
        if at and self._spans[at - 1][1] > cut and self._tells_in_part(part := (cut, self._spans[at - 1][1])):
            return part
        index = bisect_left(self._telling, at)
        return self._spans[self._telling[index]] if index < len(self._telling) else None

    def _tells_in_part(self, span: tuple[int, int]) -> bool:
        start, end = span
        words = words_of(self._clause[start : min(end, start + _LONGEST_STOP)])
        return any(map(self._tells, words))

    @staticmethod
    def _tells(word: str) -> bool:
        return word not in STOP and not word[0].isdigit()

    def _says(self, text: _Text, span: tuple[int, int] | None) -> bool:
        if span is None:
            return True
        start, end = span
        if _IS_CJK.match(self._clause, start):  # most can be told by their length alone, which matters in a long run
            if text.lengths.isdisjoint((end - start, end - start - 1)):
                return False
        elif end - start > text.longest + _MOST_SHORTENED:
            return False
        return _key(self._clause[start:end].strip("'’")) in text.keys


_MOST_SHORTENED = 16  # letters that a word's key may lack
_LONGEST_STOP = 3 + max(map(len, STOP))


def _key(word: str) -> str:
    return stem(word.casefold().removesuffix("'s").removesuffix("’s"))


_LEADING = re.compile(
    r"(?:^|(?<=[.!?]\s))\W{0,3}(?:is|are|was|were|do|does|did|has|have|can|could|wo|would|should)n['’]t\b",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r",?\s?(?:is|are|was|were|do|does|did|has|have|can|could|wo|would|should)n['’]t\s+\w+\s*\?", re.IGNORECASE
)


def _changed_negations(original: str, filtered: str, kept: list[tuple[str, _Text]], now: list[str]) -> list[str]:
    """Clauses that were kept without their "not", and what has one now."""
    before, after, rewritten = map(_without_tags, (original, filtered, "\n".join(now)))
    was, is_now = negated_in(before, near=False), negated_in(after, near=False)
    lost = [
        clause.strip()
        for clause, sentence in kept
        for word in negated_in(_without_tags(clause))
        if word not in is_now and sentence.says(word)
    ]
    said = _Text(before)
    return lost + [word for word in negated_in(rewritten) if word not in was and said.says(word)]


def _without_tags(text: str) -> str:
    return _LEADING.sub("", _TAIL.sub("", text)) if "'" in text or "’" in text else text


# The question


_OPTION = re.compile(r"(?m)^[ \t]*\(?([A-Ha-h]|[1-9])[).:][ \t]+\S.*$")


def _lost_questions(original: str, filtered: _Text, question: str) -> list[str]:
    asked = [sentence.strip() for sentence in _sentences_of(original) if asks(sentence)]
    if not asked:
        return []
    if not any(map(asks, _sentences_of(question or filtered.text))):
        return [asked[-1]]
    in_question = set(content_of(question))
    names = _Haystack(_ascii(filtered.text))
    lost = []
    for each in dict.fromkeys(asked):
        core = _core(each)
        words = set(content_of(core))
        if is_opinion(core) and len(asked) > 1:
            continue
        if words and (
            overlap(words, filtered.about) < _ASKED
            or (question and len(asked) == 1 and overlap(words, in_question) < _ASKED_THERE)
        ):
            lost.append(core)
            continue
        details = "".join(each[start:end] for start, end in clauses(each) if not is_opinion(each[start:end]))
        missing = [
            details[n.start : n.end] for n in numbers_in(details) if not n.vague and not n.values & filtered.values
        ]
        lost += missing + [name for name in _names_of(core) if _ascii(name) not in names]
    options = [match[0] for match in _OPTION.finditer(original)]
    if len(options) > 1:
        lost += [
            option.strip()
            for option in options
            if overlap(set(content_of(option)) or {"?"}, filtered.about) < _ASKED and content_of(option)
        ]
    return lost


def _sentences_of(text: str) -> Iterator[str]:
    return (text[start:end] for start, end in sentences(text))


_ASKED = 0.6
_ASKED_THERE = 0.3


def _core(sentence: str) -> str:
    """Return the part of a sentence that asks: from the last of its clauses that begins like a question."""
    parts = [sentence[start:end] for start, end in clauses(sentence)]
    for at in range(len(parts) - 1, -1, -1):
        words = [word.casefold() for word in words_of(parts[at])]
        opening = words[1:] if words[:1] in (["but"], ["so"], ["and"], ["or"], ["because"]) else words
        if opening and (opening[0] in QUESTION_WORDS | AUXILIARIES | REQUESTS) and not is_opinion(parts[at]):
            return "".join(parts[at:])
    kept = [part for part in parts if not is_opinion(part)]
    return "".join(kept) or sentence


def _names_of(text: str) -> list[str]:
    return [name for name, _, opens in names_in(text) if not (opens and _is_ordinary(name)) and not _is_ordinary(name)]


# Small things


def _breach(kind: Kind, items: Iterable[str]) -> Breach | None:
    unique = tuple(dict.fromkeys(items))
    return Breach(kind, unique) if unique else None


def _merged(found: Iterable[Breach]) -> list[Breach]:
    by_kind: dict[Kind, Counter[str]] = {}
    for breach in found:
        by_kind.setdefault(breach.kind, Counter()).update(breach.items)
    return [Breach(kind, tuple(items)) for kind, items in by_kind.items()]


def _thinned(text: str) -> str:
    """The text without long runs of white space, over which searches would take long."""
    return re.sub(r"\s*\n\s*\n\s*", "\n\n", re.sub(r"[^\S\n]+", " ", text))


def _squeezed(text: str) -> str:
    return " ".join(text.split())


_IS_CJK = re.compile(rf"[{CJK}]")


def _bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", _ascii(text)))


def _ascii(text: str) -> str:
    """The text without case, accents and typographic apostrophes."""
    plain = unicodedata.normalize("NFKD", text.casefold().replace("’", "'"))
    return "".join(each for each in plain if not unicodedata.combining(each))
