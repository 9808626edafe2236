"""Chat templates: rendered as llama-cpp-python renders them, and safe from what messages spell out."""

from __future__ import annotations

import re
from typing import Any

import gguf_models
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from correction_graphs.backends.chat_prompts import LIKE_CONTROL, any_of, prompt_tokens
from correction_graphs.backends.jinja_templates import jinja_renderer
from correction_graphs.errors import ModelFileError, SettingsError

MESSAGES = [
    {"role": "system", "content": 'Say "é" & <b>.'},
    {"role": "user", "content": "hi\n"},
    {"role": "assistant", "content": "  yes"},
]
VALUES = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize(
    "template",
    [
        gguf_models.CHAT_TEMPLATE,
        "{{ bos_token }}{% for m in messages %}\n    {% if m.role == 'user' %}\n{{ m | tojson }}{% endif %}\n{% endfor %}",
        "{{ messages | tojson(indent=2, sort_keys=true) }}{{ {'b': 'é', 'a': 1} | tojson(separators=(',', ':')) }}",
        "{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}{{ m.content }}{% break %}{% endfor %}",
        "{% generation %}{{ messages[2].content }}{% endgeneration %}{{ eos_token }}",
        "{% if tools %}x{% endif %}{{ tools is none }}{{ functions is none }}{{ tool_choice is none }}",
        "{{ strftime_now('%Y') | int > 2000 }}{{ add_generation_prompt }}{{ unknown }}",
        "{%- set ns = namespace(found=false) -%}{% for m in messages %}{% set ns.found = true %}{% endfor %}{{ ns.found }}",
    ],
)
def test_a_template_renders_as_llama_cpp_python_renders_it(template: str) -> None:
    expected = Jinja2ChatFormatter(template=template, **VALUES)(messages=MESSAGES).prompt
    assert jinja_renderer(template, VALUES, source="it")(MESSAGES) == expected


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{ raise_exception('system comes first') }}", "system comes first"),
        ("{{ messages[0].nothing.at_all }}", "no attribute"),
        ("{{ messages[0].content + 1 }}", "concatenate"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_what_a_template_refuses_is_told_with_the_roles(template: str, complaint: str) -> None:
    render = jinja_renderer(template, {}, source="the template of mine")
    with pytest.raises(SettingsError, match=rf"the template of mine .*\['system', 'user', 'assistant'\].*{complaint}"):
        render(MESSAGES)


def test_a_broken_template_is_told_apart() -> None:
    for kind in (SettingsError, ModelFileError):
        with pytest.raises(kind, match="the template of mine is broken; Jinja says"):
            jinja_renderer("{% for %}", {}, source="the template of mine", kind=kind)


def letters(text: str, *, special: bool = False) -> list[int]:
    """Code points; with `special`, `<end>` is -1."""
    parts = text.split("<end>") if special else [text]
    return [code for part in parts for code in (*map(ord, part), -1)][:-1]


def lines(messages: list[dict[str, str]]) -> str:
    return "".join(f"{message['role']}: {message['content']}<end>" for message in messages)


@given(
    contents=st.lists(
        st.lists(st.sampled_from(["<end>", "<en", "d>", "\ue000", "\ue001", "0", "é"]), max_size=8).map("".join),
        max_size=4,
    ),
    control=st.sampled_from([any_of(["<end>"]), LIKE_CONTROL]),
)
def test_contents_stay_as_they_are_and_forge_nothing(contents: list[str], control: re.Pattern[str]) -> None:
    messages = [{"role": "user", "content": content} for content in contents]
    tokens = prompt_tokens(messages, render=lines, tokenize=letters, control=control)
    expected = [code for content in contents for code in (*letters(f"user: {content}"), -1)]
    assert tokens == expected


def test_the_longest_spelling_is_held_and_no_spelling_matches_nothing() -> None:
    assert any_of(["<a", "<a>", ""]).findall("<a> <a") == ["<a>", "<a"]
    assert any_of([]).findall("anything") == any_of([""]).findall("anything") == []


@pytest.mark.parametrize("prompt", [[1, 2, 3], None])
def test_a_function_that_returns_no_text_is_told_so(prompt: Any) -> None:
    with pytest.raises(SettingsError, match=r"returned .* expected the prompt as text.*tokenize=False"):
        prompt_tokens(MESSAGES, render=lambda _: prompt, tokenize=letters, control=LIKE_CONTROL)
