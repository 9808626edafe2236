"""The words of the guards: numbers, names, negations, questions and opinions in English and Chinese."""

# ruff: noqa: RUF001, SIM905 -- punctuation of other scripts is the point; lists of words read best as text

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from correction_graphs.scripts import CJK, IS_CJK

_WORD = re.compile(rf"[{CJK}]+|\d+(?:[.,]\d+)*|[^\W\d_{CJK}]+(?:['’][^\W\d_{CJK}]+)*")

STOP = frozenset(
    """
    a an the this that these those there here it its it's is are was were be been being am do does did done
    has have had having will would shall should can could may might must of in on at to from by with for about
    as into onto over under between among through during within without and or but nor so yet if then than
    when while who whom whose which what where why how i me my mine myself you your yours he him his she her
    hers they them their theirs we us our ours not no n't isn't aren't wasn't weren't don't doesn't didn't
    won't wouldn't can't cannot couldn't shouldn't hasn't haven't hadn't also just only even very too much
    many more most some any each every all both either neither one such same own other another please let's
    i'm i've i'd i'll you're you've he's she's they're we're what's that's there's given say says said tell
    know
    """.split()
)
_STOP_CJK = frozenset(
    "的了是在和与及或吗呢吧啊呀么着过把被就都也还又很最更这那我你他她它们个请问有为什怎哪谁几多少对从到而且但因所以如果"
)

NEGATIONS = frozenset(
    """
    not no never none nobody nothing neither nor without cannot hardly barely scarcely unless nowhere
    """.split()
)
_NEGATION_CJK = re.compile(
    r"(?:不(?!同|仅|但|过|断|少|久|错|管|论|妨|得不|如说|只)|没(?!错)|(?<!有)无(?!论|比)|未(?!来|必)|(?<!特|个|分|级|类|区|性|鉴|识|辨)别(?!的|人|墅|名|称)|"
    r"(?<!除|是|莫|并)非(?!常|洲)|勿|并非|绝不|从不)"
)

QUESTION_WORDS = frozenset(
    """
    who whom whose what which when where why how
    """.split()
)
AUXILIARIES = frozenset(
    """
    is are was were do does did can could will would should shall may might has have had am
    """.split()
)
REQUESTS = frozenset(
    """
    answer calculate choose classify compare complete compute consider convert count create define describe
    determine discuss draft estimate evaluate explain express fill find fix generate give help identify list
    make name outline pick please predict prove provide rate recommend review rewrite select show simplify
    solve state suggest summarize summarise tell translate use write comment analyze analyse assess decide
    suppose assume
    """.split()
)
_REQUEST_CJK = re.compile(
    r"(?:^|[，,。；;\s])(?:请|帮我|告诉我|求|计算|解释|说明|列出|写|翻译|总结|比较|评价|评论|分析|给出|推荐)"
)
_QUESTION_CJK = re.compile(
    r"什么|怎么|怎样|如何|为什么|为何|哪|谁|几(?!乎)|多少|多大|多长|多远|多久|是否|是不是|有没有|能不能|吗|呢"
)

_ADVERBS = r"(?:(?:really|personally|honestly|strongly|firmly|do|also|still|just|always|quite) )*"
_VERBS = (
    "think|thought|believe|feel|guess|suppose|suspect|assume|doubt|bet|figure|reckon|love|liked?|hate|dislike|prefer|"
    "wrote|imagine|agree|disagree|would say|would bet|heard"
)
_OPINIONS = (
    rf"i {_ADVERBS}(?:{_VERBS})",
    r"i (?:don't|do not|didn't|did not|can't|cannot) (?:really )?(?:think|believe|like|agree|see|write|imagine)",
    r"i(?:'m| am) (?:\w+ )?(?:sure|certain|convinced|confident|positive|leaning|guessing|afraid)",
    r"in my (?:humble |honest |personal )?(?:opinion|view|experience)",
    r"if you ask me",
    r"my (?:\w+ )?(?:opinion|view|guess|feeling|hunch|gut|bet|impression)",
    r"my (?:\w+ ){1,2}(?:says|said|insists|thinks|believes|swears|keeps|told|claims|reckons)",
    r"(?:every(?:one|body)|people|they|some) (?:\w+ )?(?:knows?|agrees?|says?|thinks?|believes?)",
    r"(?:we all|as we) know",
    r"obviously|clearly|of course|surely|frankly|honestly|undoubtedly|no doubt|needless to say|imo|imho",
    r"(?:don't|wouldn't) you (?:think|say|agree)",
    r"you(?:'ll|'d| must| will| would| have to) (?:\w+ )?(?:agree|admit|see)",
    r"(?:do you )?agree\?|right\?|correct\?|isn't (?:it|that)",
    r"it seems to me|it(?:'s| is) (?:obvious|clear|undeniable|well known)|as an expert",
)
_OPINIONS_CJK = (
    "我(?:个人)?(?:真的|觉得|认为|以为|相信|想|猜|感觉|看|确信|肯定|敢|怀疑|喜欢|不喜欢|讨厌|不认为|不觉得|不确定|很确定)|在我看来|依我看|"
    "我的(?:看法|观点|意见|感觉)|众所周知|显然|毫无疑问|当然|大家都(?:知道|说|认为)|谁都知道|你(?:不)?(?:觉得|认为|同意)|"
    "对吧|对吗|是吧|不是吗|说实话|老实说|听说|(?:朋友|老师|同事|妈妈|爸爸)(?:说|认为|觉得)"
)
OPINION = re.compile(
    rf"\b(?:{'|'.join(_OPINIONS)})(?!\w)|{_OPINIONS_CJK}".replace(" ", r"\s+").replace("'", "['’]"), re.IGNORECASE
)

# Words that begin a sentence with a capital letter and are no names.
STARTERS = frozenset(
    """
    after before although though because since until unless once whether whereas however therefore thus hence
    also according based given using additionally furthermore moreover meanwhile instead otherwise overall
    finally first second third next then today yesterday tomorrow now currently recently people someone
    something everyone anyone context question text answer note facts fact background information details
    several many few most some part two three four five six seven eight nine ten yes ok okay regarding
    concerning assuming suppose imagine during despite against along across per via like unlike every each
    both either neither another other others none such total user users person persons title topic subject
    statement claim argument problem task story passage option options choice choices
    """.split()
)


def words_of(text: str) -> list[str]:
    """Return the words of a text as they stand there; a run of CJK characters is one."""
    return _WORD.findall(text)


def spans_of(text: str) -> list[tuple[int, int]]:
    """Return where the words of a text begin and end."""
    return [match.span() for match in _WORD.finditer(text)]


def content_of(text: str) -> list[str]:
    """Return what a text is about: stems without function words, and pairs of CJK characters."""
    found: list[str] = []
    for word in words_of(text):
        found += (_content_of_short if len(word) <= _SHORT else _content_of_word)(word)
    return found


def _content_of_word(word: str) -> Sequence[str]:
    if IS_CJK.match(word):
        return _pairs(word)
    folded = word.casefold().replace("’", "'").removesuffix("'s")
    return () if folded in STOP else (stem(folded),)


def stem(word: str) -> str:
    """Return a word without its most common English endings."""
    return _stem_of_short(word) if len(word) <= _SHORT else _stem(word)


def _stem(word: str) -> str:
    for ending in ("ingly", "edly", "ing", "ies", "ied", "ed", "es", "ly", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:  # noqa: PLR2004
            word = word.removesuffix(ending) + ("y" if ending in ("ies", "ied") else "")
            break
    if len(word) > 4 and word[-1] == word[-2]:  # noqa: PLR2004
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word  # noqa: PLR2004


_SHORT = 40  # of a word worth remembering: thousands of long ones would fill the memory
_stem_of_short = lru_cache(maxsize=8192)(_stem)
_content_of_short = lru_cache(maxsize=8192)(_content_of_word)


def negations_in(text: str) -> int:
    """Count what negates in a text."""
    words = [word.casefold().replace("’", "'") for word in words_of(text)]
    return sum(map(_is_negation, words)) + len(_NEGATION_CJK.findall(text))


def negated_in(text: str, *, near: bool = True) -> set[str]:
    """Return what is negated in a text: the stem of the word that follows each negation, or the next CJK characters.

    Where nothing follows within reach, it is the word before.

    Args:
        text: What to look through.
        near: Whether only the nearest word counts; otherwise all that follow within reach, and the one before.
    """
    found: set[str] = set()
    if IS_CJK.search(text):
        found = {text[mark.end() : mark.end() + 2] for mark in _NEGATION_CJK.finditer(text)}
    found = {re.split(rf"[^{CJK}]", after)[0] for after in found}
    for sentence in _NEGATION_REACHES.split(text):
        words = [word.casefold().replace("’", "'") for word in words_of(_NUMBER_SIGN.sub("", sentence))]
        negations = [at for at, word in enumerate(words) if _is_negation(word)]
        if not negations:
            continue
        said = [None if word in STOP or _is_negation(word) else stem(word.removesuffix("'s")) for word in words]
        last, until = None, 0
        for at in negations:
            after = [each for each in said[at + 1 : at + 1 + _REACH] if each]
            last = next((each for each in reversed(said[until:at]) if each), last)
            until = at
            earlier = [last] if last else []
            found.update((after + earlier)[:1] if near else after + earlier)
    return found - {""}


_REACH = 7
# It begins where a run of marks does (after "no" one mark later) or at a line's end in it: elsewhere it would only fail
# again, which takes long in a long run.
_NEGATION_REACHES = re.compile(r"(?<!\bno)(?:(?<![.!?;\n])|(?<=\bno[.!?;\n])|(?=\n))[.!?;\n]+(?=\s|$)", re.IGNORECASE)
_NUMBER_SIGN = re.compile(r"\bno\.(?=\s*\d)", re.IGNORECASE)


def _is_negation(word: str) -> bool:
    return word in NEGATIONS or word.endswith("n't")


def is_opinion(text: str) -> bool:
    """Whether a text is marked as somebody's opinion, or asks for assent."""
    return OPINION.search(text) is not None


def asks(text: str) -> bool:
    """Whether a sentence is a question or a request."""
    stripped = text.strip().rstrip("\"'”’)）】」』» ")
    if stripped.endswith(("?", "？", "؟")) or _REQUEST_CJK.search(stripped) or _QUESTION_CJK.search(stripped):
        return True
    words = [word.casefold() for word in words_of(stripped)[:3]]
    return bool(words) and (
        words[0] in REQUESTS or words[0] in QUESTION_WORDS or words[:2] in (["can", "you"], ["could", "you"])
    )


def _pairs(run: str) -> list[str]:
    pairs = [run[at : at + 2] for at in range(len(run) - 1)]
    kept = [pair for pair in pairs if not set(pair) <= _STOP_CJK]
    return kept or ([run] if len(run) == 1 and run not in _STOP_CJK else [])
