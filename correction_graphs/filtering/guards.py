"""Whether a filtered text is true to the original: nothing added, no number or negation lost, and the question kept.

The guards judge by words alone. They are strict about what can change an answer (numbers, names, quotations, "not", the
question), and leave a filter free in how it joins what it keeps.
"""

# ruff: noqa: RUF001 -- punctuation of other scripts is the point

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from correction_graphs.filtering.alignment import changed, clauses, overlap, sentences
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
    original = _thinned(original)
    context, question = _thinned(context), _thinned(question)
    filtered = "\n".join(part for part in (context, question) if part.strip())
    if not filtered.strip():
        return [Breach("empty")]
    if _squeezed(filtered) == _squeezed(original):
        return []
    was, now = changed(original, filtered)
    kept = list(_kept_clauses(was, now))
    found = [
        Breach("longer", ()) if _is_longer(original, filtered) else None,
        _breach(
            "added",
            [*_new_numbers(original, filtered), *_new_names(original, filtered), *_new_quotes(original, filtered)],
        ),
        _breach("added", _new_sentences(original, now)),
        _breach("added", _swapped(original, now)),
        _breach("lost", _lost_details(kept, filtered)),
        _breach("negation", _changed_negations(original, filtered, kept, now)),
        _breach("question", _lost_questions(original, filtered, question)) if whole else None,
    ]
    return _merged(breach for breach in found if breach)


# Nothing added


def _is_longer(original: str, filtered: str) -> bool:
    before, after = len(content_of(original)), len(content_of(filtered))
    return after > before * 1.25 + 8


def _new_numbers(original: str, filtered: str) -> list[str]:
    known = values_in(original)
    return [
        filtered[number.start : number.end]
        for number in numbers_in(filtered)
        if not number.vague
        and not number.values & known
        and not _stands_in(filtered[number.start : number.end], original)
    ]


def _stands_in(words: str, text: str) -> bool:
    return not any(each.isdigit() for each in words) and words.casefold() in text.casefold()


_CAPITAL = re.compile(rf"(?<![\w'’])(?![{CJK}])[^\W\d_](?:(?![{CJK}])[^\W_])*(?:['’-](?:(?![{CJK}])[^\W_])+)*")
_OPENS = re.compile(r"(?:\A|[.!?…:;\n\"“”‘(\[*•>–—]|[-–]\s)\s*[\"“‘'(*_]*\Z")


def names_in(text: str) -> list[tuple[str, int, bool]]:
    """Return the words that are written like names, where they begin, and whether they open a sentence."""
    found = []
    indent = len(text) - len(text.lstrip())
    for match in _CAPITAL.finditer(text):
        word = match[0]
        if not word[0].isupper() or word.split("'")[0].split("’")[0] == "I":
            continue
        opens = _OPENS.search(text[max(0, match.start() - 8) : match.start()]) is not None or match.start() <= indent
        found.append((re.sub(r"['’]s?\Z", "", word), match.start(), opens))
    return found


def _is_ordinary(word: str) -> bool:
    folded = word.casefold()
    return (
        folded in STOP | STARTERS | REQUESTS | QUESTION_WORDS | AUXILIARIES
        or "n't" in folded.replace("’", "'")
        or (folded.endswith(("ly", "ing")) and word[1:].islower())
    )


def _new_names(original: str, filtered: str) -> list[str]:
    folded = {_ascii(word).removesuffix("'s") for word in re.split(r"[^\w'’]+", original)}
    folded |= {part for word in folded for part in re.split(r"['’_]", word)}
    stems = {stem(word) for word in folded}
    new = []
    for word, _, opens in names_in(filtered):
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


def _is_derived(name: str, known: Iterable[str]) -> bool:
    """Whether it is another form of a known word, as Australian is of Australia, and Italian of Italy."""
    return any(_derives(name, word) or _derives(word, name) for word in known)


def _derives(longer: str, word: str) -> bool:
    if len(word) < _LONG or not longer.startswith(word[:-1]):
        return False
    roots = [word, word[:-1]] if word[-1] in "aeiouy" else [word]
    return longer == word + "n" or any(longer == root + suffix for root in roots for suffix in _SUFFIXES)


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
    return [name for name in _HAN_NAME.findall(filtered) if name not in original]


_QUOTED = re.compile(
    r"“([^”\n]+)”|\"([^\"\n]+)\"|「([^」\n]+)」|『([^』\n]+)』|《([^》\n]+)》|«([^»\n]+)»|`([^`\n]+)`|(?<!\w)[‘']([^'’\n]{2,}?)['’](?!\w)"
)
_VERBATIM = re.compile(r"https?://[^\s<>\"'）)，。]+|[\w.+-]+@[\w-]+\.[\w.]+")


def _new_quotes(original: str, filtered: str) -> list[str]:
    text = _bare(original)
    quotes = [next(filter(None, match.groups())) for match in _QUOTED.finditer(filtered)]
    return [
        each
        for each in [*quotes, *(link.rstrip(".") for link in _VERBATIM.findall(filtered))]
        if _bare(each) not in text
    ]


def _new_sentences(original: str, now: list[str]) -> list[str]:
    """Sentences most of whose words are not in the original."""
    known = set(content_of(original))
    new = []
    for sentence in now:
        words = set(content_of(sentence))
        strange = words - known
        if len(strange) > max(3, 0.5 * len(words)) or (len(strange) == len(words) > 2):  # noqa: PLR2004
            new.append(sentence.strip())
    return new


# Nothing exchanged


_REACH = 4


class _Place(NamedTuple):
    """Where a number or name stands: the words before it and after it, nearest first."""

    key: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    def likeness(self, other: _Place) -> float:
        """How much two places have in common; near words count most."""
        return _common(self.before, other.before) + _common(self.after, other.after)


def _swapped(original: str, sentences_now: list[str]) -> list[str]:
    """Numbers and names that stand where another one stood."""
    places = _places(original)
    now = _places("\n".join(sentence.strip() for sentence in sentences_now))
    new = []
    for kind in ("number", "name"):
        old = places[kind]
        if len(old) * len(now[kind]) > _MOST_PLACES:
            continue
        keys = {place.key for place in old}
        moved: dict[str, set[str]] = {}
        for place in now[kind]:
            if place.key not in keys:
                continue
            own = max(place.likeness(other) for other in old if other.key == place.key)
            best = max(old, key=place.likeness)
            if best.key != place.key and place.likeness(best) > own + _MARGIN:
                moved.setdefault(place.key, set()).add(best.key)
        new += [key for key, others in moved.items() if any(key in moved.get(other, ()) for other in others)]
        new += [
            key
            for key, others in moved.items()
            if not any(key in moved.get(other, ()) for other in others) and _is_clear(key, now[kind], old)
        ]
    return new


_MARGIN = 0.3
_MOST_PLACES = 250_000  # of a long text that was all written anew; to compare them would take seconds
_CLEAR = 1.4


def _is_clear(key: str, now: list[_Place], old: list[_Place]) -> bool:
    """Whether every place of it is much more like one of another's."""
    return all(
        max(place.likeness(other) for other in old) - max(place.likeness(other) for other in old if other.key == key)
        >= _CLEAR
        for place in now
        if place.key == key
    )


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    return sum(1 / (1 + max(one.index(word), other.index(word))) for word in set(one) & set(other))


def _places(text: str) -> dict[str, list[_Place]]:
    numbers = numbers_in(text)
    names = {
        start: name
        for name, start, opens in names_in(text)
        if not (opens and _is_ordinary(name)) and name.casefold() not in STOP
    }
    for match in _HAN_NAME.finditer(text):
        names[match.start()] = match[0]
    found: dict[str, list[_Place]] = {"number": [], "name": []}
    for start, end in (clause for sentence in sentences(text) for clause in clauses(text, *sentence)):
        tokens = list(_tokens(text, start, end, numbers, names))
        for at, (kind, key) in enumerate(tokens):
            if kind != "word":
                before = tuple(
                    dict.fromkeys(word for _, word in reversed(tokens[max(0, at - _REACH) : at]) if word != key)
                )
                after = tuple(dict.fromkeys(word for _, word in tokens[at + 1 : at + 1 + _REACH] if word != key))
                found[kind].append(_Place(key, before, after))
    return found


_TOKEN = re.compile(rf"[{CJK}]|(?:(?![{CJK}])[^\W_])+(?:['’](?:(?![{CJK}])[^\W_])+)*")


def _tokens(text: str, start: int, end: int, numbers: list[Number], names: dict[int, str]) -> Iterator[tuple[str, str]]:
    """Yield the words of a clause that say something, each as what it is."""
    first = bisect_left(numbers, start, key=lambda number: number.start)
    here = [number for number in numbers[first : bisect_left(numbers, end, key=lambda n: n.start)] if not number.vague]
    until = start
    for match in _TOKEN.finditer(text, start, end):
        if match.start() < until:
            continue
        number = next((number for number in here if number.start <= match.start() < number.end), None)
        if number:
            until = number.end
            yield "number", min(number.values)
        elif match.start() in names:
            until = match.start() + len(names[match.start()])
            yield "name", names[match.start()].casefold()
        elif (word := match[0].casefold()) not in STOP or word in _RELATIONS:
            yield "word", stem(word)


_RELATIONS = frozenset(["than", "by", "to", "from", "before", "after", "over", "under"])


# Nothing lost of what was kept


def _kept_clauses(was: list[str], now: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the clauses that were kept in other words, each with the sentence that has most of it."""
    words = [set(content_of(sentence)) for sentence in now]
    if not words or len(was) * len(words) > _MOST_SENTENCES:
        return
    for sentence in was:
        for start, end in clauses(sentence):
            text = sentence[start:end]
            content = {word for word in content_of(text) if not word.isdigit()}
            if len(content) < (1 if negations_in(text) else 2):
                continue
            best = max(range(len(words)), key=lambda at: (overlap(content, words[at]), -len(words[at])))
            if overlap(content, words[best]) >= _KEPT:
                yield text, now[best]


_MOST_SENTENCES = 1_000_000
_KEPT = 0.6


def _lost_details(kept: list[tuple[str, str]], filtered: str) -> list[str]:
    """Numbers that are missing between words that were kept."""
    known = values_in(filtered)
    lost = []
    for clause, sentence in kept:
        words = set(map(_key, words_of(sentence)))
        said = {word for word in content_of(clause) if not word[0].isdigit()}
        if overlap(said, set(content_of(sentence))) < _WHOLE:
            continue
        for number in numbers_in(clause):
            around = [*_told(clause[: number.start])[-1:], *_told(clause[number.end :])[:1]]
            if not number.vague and not number.values & known and words.issuperset(around) and not is_opinion(clause):
                lost.append(clause[number.start : number.end])
    return lost


_WHOLE = 0.8


def _told(text: str) -> list[str]:
    """Return the words that say something, without numbers; "May" does, and "may" does not."""
    return [_key(word) for word in words_of(text) if word not in STOP and not word[0].isdigit()]


def _key(word: str) -> str:
    return stem(word.casefold().removesuffix("'s").removesuffix("’s"))


_LEADING = re.compile(
    r"(?:^|(?<=[.!?]\s))\W{0,3}(?:is|are|was|were|do|does|did|has|have|can|could|wo|would|should)n['’]t\b",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r",?\s?(?:is|are|was|were|do|does|did|has|have|can|could|wo|would|should)n['’]t\s+\w+\s*\?", re.IGNORECASE
)


def _changed_negations(original: str, filtered: str, kept: list[tuple[str, str]], now: list[str]) -> list[str]:
    """Clauses that were kept without their "not", and what has one now."""
    before, after, rewritten = (_LEADING.sub("", _TAIL.sub("", text)) for text in (original, filtered, "\n".join(now)))
    was, is_now = negated_in(before, near=False), negated_in(after, near=False)
    lost = [
        clause.strip()
        for clause, sentence in kept
        for word in negated_in(_LEADING.sub("", _TAIL.sub("", clause)))
        if _says(sentence, word) and word not in is_now
    ]
    return lost + [word for word in negated_in(rewritten) if _says(before, word) and word not in was]


def _says(text: str, word: str) -> bool:
    return word in text if re.match(rf"[{CJK}]", word) else word in set(map(_key, words_of(text)))


# The question


_OPTION = re.compile(r"(?m)^[ \t]*\(?([A-Ha-h]|[1-9])[).:][ \t]+\S.*$")


def _lost_questions(original: str, filtered: str, question: str) -> list[str]:
    asked = [original[start:end].strip() for start, end in sentences(original) if asks(original[start:end])]
    if not asked:
        return []
    asking = question or filtered
    if not any(asks(asking[start:end]) for start, end in sentences(asking)):
        return [asked[-1]]
    known, values = set(content_of(filtered)), values_in(filtered)
    in_question = set(content_of(question))
    lost = []
    for each in asked:
        core = _core(each)
        words = set(content_of(core))
        if is_opinion(core) and len(asked) > 1:
            continue
        if words and (
            overlap(words, known) < _ASKED
            or (question and len(asked) == 1 and overlap(words, in_question) < _ASKED_THERE)
        ):
            lost.append(core)
            continue
        details = "".join(each[start:end] for start, end in clauses(each) if not is_opinion(each[start:end]))
        missing = [details[n.start : n.end] for n in numbers_in(details) if not n.vague and not n.values & values]
        lost += missing + [name for name in _names_of(core) if _ascii(name) not in _ascii(filtered)]
    options = [match[0] for match in _OPTION.finditer(original)]
    if len(options) > 1:
        lost += [
            option.strip()
            for option in options
            if overlap(set(content_of(option)) or {"?"}, known) < _ASKED and content_of(option)
        ]
    return lost


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


def _bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", _ascii(text)))


def _ascii(text: str) -> str:
    """The text without case, accents and typographic apostrophes."""
    plain = unicodedata.normalize("NFKD", text.casefold().replace("’", "'"))
    return "".join(each for each in plain if not unicodedata.combining(each))
