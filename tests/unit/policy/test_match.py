from __future__ import annotations

import pytest

from meshlib.policy.match import HeadView, Match, Predicate, string_test


def head(target: bytes = b"/") -> HeadView:
    return HeadView("GET", target, "reviews", [])


@pytest.mark.parametrize(
    ("condition", "text", "holds"),
    [
        (("a", None, None), "a", True),
        (("a", None, None), "ab", False),
        ((None, "/api/", None), "/api/v1", True),
        ((None, "/api/", None), "/apiary", False),
        ((None, None, "/v[0-9]+"), "/v12", True),
        ((None, None, "/v[0-9]+"), "/v12/x", False),  # the whole of it
        ((None, None, "/v[0-9]+"), "x/v12", False),
        ((None, None, None), "anything", True),
        (("", None, None), "", True),
        (("", None, None), "x", False),
    ],
)
def test_a_string_is_matched_exactly_by_prefix_or_by_regex(
    condition: tuple[str | None, str | None, str | None], text: str, holds: bool
) -> None:
    assert string_test(*condition)[1](text) is holds


def test_a_condition_can_say_what_it_is() -> None:
    assert string_test("a", None, None)[0] == "exact 'a'"
    assert string_test(None, "/a", None)[0] == "prefix '/a'"
    assert string_test(None, None, "a+")[0] == "regex 'a+'"
    assert string_test(None, None, None)[0] == "present"


def test_the_path_ends_where_the_query_begins() -> None:
    assert head(b"/a/b?c=/d").path == "/a/b"
    assert head(b"/a/b").path == "/a/b"


def test_of_a_repeated_query_field_the_first_counts() -> None:
    assert head(b"/?a=1&a=2&b=&c=%20x").query == {"a": "1", "b": "", "c": " x"}


def test_a_match_holds_when_each_of_its_conditions_does() -> None:
    yes, no = Predicate("yes", lambda _: True), Predicate("no", lambda _: False)
    assert Match((yes, yes)).holds(head())
    assert not Match((yes, no)).holds(head())
    assert Match(()).holds(head())


def test_the_authority_is_the_host_header_or_else_the_host_of_the_url() -> None:
    assert head().authority == "reviews"
    assert HeadView("GET", b"/", "reviews", [(b"Host", b"reviews:8080")]).authority == "reviews:8080"
