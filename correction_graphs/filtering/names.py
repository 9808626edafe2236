"""Which words of a text are names, and which names a filtered text has that the original has not."""

# ruff: noqa: RUF001 -- punctuation of other scripts is the point

from __future__ import annotations

import re
from collections.abc import Iterator

from correction_graphs.filtering.texts import Haystack, without_accents
from correction_graphs.filtering.words import AUXILIARIES, QUESTION_WORDS, REQUESTS, STARTERS, STOP, stem
from correction_graphs.scripts import CJK, IS_CJK

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


def is_ordinary(word: str) -> bool:
    """Whether a word is no name, though a sentence that it opens gives it a capital letter."""
    folded = word.casefold()
    return (
        folded in _ORDINARY
        or "n't" in folded.replace("’", "'")
        or (folded.endswith(("ly", "ing")) and word[1:].islower())
    )


_ORDINARY = STOP | STARTERS | REQUESTS | QUESTION_WORDS | AUXILIARIES


def new_names(original: str, filtered: str) -> list[str]:
    """Return the names that are in the filtered text only."""
    folded = {without_accents(word).removesuffix("'s") for word in set(re.split(r"[^\w'’]+", original))}
    folded |= {part for word in folded for part in re.split(r"['’_]", word)}
    stems = {stem(word) for word in folded}
    new = []
    for word, opens in dict.fromkeys((word, opens) for word, _, opens in names_in(filtered)):
        key = without_accents(word)
        if word in _MONTHS:
            if not re.search(rf"\b{word}\b", original):
                new.append(word)
            continue
        if key in folded or stem(key) in stems or (opens and is_ordinary(word)) or key in STOP:
            continue
        if all(without_accents(part) in folded for part in re.split(r"[-'’]", word)) or _is_derived(key, folded):
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
HAN_NAME = re.compile(
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
    names = dict.fromkeys(HAN_NAME.findall(filtered) if IS_CJK.search(filtered) else ())
    if not names:
        return []
    there = Haystack(original, HAN_NAME.findall(original))
    return [name for name in names if name not in there]


def proper_names(text: str) -> list[str]:
    """Return the words that are written like names and are no ordinary words."""
    return [name for name, _, _ in names_in(text) if not is_ordinary(name)]
