"""Which regular expressions are safe to run on what strangers send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.resources.regex import regex_fault


@pytest.mark.parametrize(
    "pattern",
    [
        "", "a", "v[12]", "^/api/.*$", "(/[a-z]+)*", r"([0-9]{1,3}\.){3}[0-9]{1,3}", r"^(.*?;)?(user=jason)(;.*)?$",
        ".*/v1/.*/items/.*", r"(\w+\s)*", r"\d+(,\d+)*", "(?i)abc.*", "(foo|bar)+", "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
        r"(?P<name>[^/]+)/(?P<id>\d+)", r"\[x\]", r"[\[\]]",
    ],
)  # fmt: skip
def test_an_expression_that_always_knows_where_to_go_is_accepted(pattern: str) -> None:
    assert regex_fault(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$", "(a*)*", "(.*)*", "(a|aa)+", "(a|b|ab)*c", "(a?b?)*",
        "(a|a)*", "(a?)*", "(b(a?)?)*", "((a|)|)*b", r"(\w+\s?)*", "(x+x+)+y", "(.*a){20}",
        "(.*?,){11}P", "^(([a-z])+.)+[A-Z]([a-z])+$", "(?i)(aA?)+", "(?i:(a+A)+)", "([^/]+/?)*",
    ],
)  # fmt: skip
def test_an_expression_that_could_take_exponential_time_is_refused(pattern: str) -> None:
    assert "exponential" in (regex_fault(pattern) or "")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("a?" * 30 + "a" * 30, "too long"),
        (".*a.*b.*c", "too long"),
        ("[a-z]+.+[a-z]+", "too long"),
        ("(?=a)b", "lookaround"),
        ("(?<!a)b", "lookaround"),
        (r"(a)\1", "a backreference"),
        ("(?i)(a)\\1", "a backreference"),
        ("(a)?(?(1)b|c)", "a conditional group"),
        ("a{2000}", "repeats more than 1000 times"),
        ("a{1,2000}", "repeats more than 1000 times"),
        ("[[:alpha:]]", "class inside a class"),
        ("(", "is not a regular expression"),
        (r"\z", "is not a regular expression"),
        ("a" * 1025, "at most 1024"),
    ],
)
def test_an_expression_that_is_not_allowed_is_refused_by_name(pattern: str, words: str) -> None:
    assert words in (regex_fault(pattern) or "")


@given(st.text("ab.*+?{},0123()[]^$|\\-wd:=!<P", max_size=40))
def test_any_text_gives_an_answer(pattern: str) -> None:
    fault = regex_fault(pattern)
    assert fault is None or fault


def test_deep_nesting_gives_an_answer() -> None:
    assert regex_fault("(" * 512 + ")" * 512) in (None, "is nested too deeply")
