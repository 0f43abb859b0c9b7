"""Who may come in by Consul's intentions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from meshlib.policy.intentions import Decision, RequestView, decide, source_of
from meshlib.policy.match import MAX_MATCHED
from meshlib.resources import HeaderPermission, Intention, Intentions, Permission

WEB = ("default", "web")


def request(path: str = "/", *, method: str = "GET", headers: Mapping[str, str] = {}) -> RequestView:
    return RequestView(method, path, headers.get)


def decided(*rules: Intention, source: tuple[str, str] | None = WEB, default: bool = False, **more: Any) -> Decision:
    return decide(Intentions(rules, default), source, request(**more))


def permits(permission: Permission, **more: Any) -> bool:
    """Whether a request is let in where that is all there is, or everything else is."""
    rest = (Permission("allow"),) if permission.action == "deny" else ()
    return decided(Intention("web", None, (permission, *rest)), **more).allowed


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/ns/default/dc/dc1/svc/web", WEB),
        ("/ns/shop/dc/dc2/svc/web", ("shop", "web")),
        ("/ns/default/dc/dc1/svc/web/", None),
        ("/ap/other/ns/default/dc/dc1/svc/web", None),
        ("/ns/default/sa/web", None),
        ("/ns/default/dc/dc1/svc/web/svc/db", None),
        ("", None),
    ],
)
def test_a_caller_is_read_from_its_identity_as_consul_writes_it(path: str, source: tuple[str, str] | None) -> None:
    assert source_of(path) == source


def test_the_first_rule_that_fits_the_caller_decides() -> None:
    rules = (Intention("web", "deny"), Intention("*", "allow"))
    assert not decided(*rules).allowed
    assert decided(*rules, source=("default", "api")).allowed
    assert not decided(*reversed(rules), Intention("web", "deny"), source=("other", "web")).allowed


def test_a_caller_without_an_identity_fits_only_rules_for_everybody() -> None:
    assert not decided(Intention("web", "allow"), source=None).allowed
    assert decided(Intention("*", "allow"), source=None).allowed
    assert not decided(Intention("*", "deny"), source=None, default=True).allowed


@pytest.mark.parametrize("default", [True, False])
def test_the_default_holds_where_no_rule_fits(default: bool) -> None:
    assert decided(Intention("api", "allow"), default=default).allowed is default


def test_reasons_name_the_rule_and_the_caller() -> None:
    assert decided(Intention("web", "deny")).reason == "the intention for default/web says deny to default/web"
    assert "permission 1" in decided(Intention("web", None, (Permission("deny"),))).reason
    assert "no permission" in decided(Intention("web", None)).reason
    assert "without an identity" in decided(source=None).reason


def test_the_first_permission_that_fits_decides_and_none_means_no() -> None:
    rule = Intention("web", None, (Permission("deny", path_prefix="/admin"), Permission("allow", path_prefix="/")))
    assert decided(rule, path="/public").allowed
    assert not decided(rule, path="/admin/x").allowed
    assert not decided(Intention("web", None, (Permission("allow", path_exact="/a"),)), default=True, path="/b").allowed


SAME = [
    "/admin", "//admin", "/./admin", "/x/../admin", "/%61dmin", "/%2e/admin", "\\admin", "/x/..//%61dmin", "/admin/.",
]  # fmt: skip


@pytest.mark.parametrize("path", SAME)
def test_no_way_of_writing_a_path_avoids_a_denial(path: str) -> None:
    assert not permits(Permission("deny", path_prefix="/admin"), path=path)
    assert not permits(Permission("deny", path_exact="/admin"), path=path)
    assert not permits(Permission("deny", path_regex="/ad.*"), path=path)


@pytest.mark.parametrize("path", ["", "http://web", "http://web/", "*"])
def test_a_target_without_a_path_is_the_root(path: str) -> None:
    assert not permits(Permission("deny", path_prefix="/"), path=path)


def test_a_target_in_absolute_form_avoids_no_denial() -> None:
    assert not permits(Permission("deny", path_prefix="/admin"), path="http://web/x/../admin")


@pytest.mark.parametrize("path", ["/public/../admin", "/public/%2e%2e/admin", "/public/..", "/public\\..\\admin"])
def test_no_way_of_writing_a_path_gets_more_than_is_allowed(path: str) -> None:
    assert not permits(Permission("allow", path_prefix="/public/"), path=path)


@pytest.mark.parametrize("path", ["/admin/", "/api/admin", "/api//admin/"])
def test_what_a_router_takes_away_from_a_path_avoids_no_denial(path: str) -> None:
    mounted = RequestView("GET", path, {}.get, "/api")
    denying = Intention("web", None, (Permission("deny", path_exact="/admin"), Permission("allow")))
    allowing = Intention("web", None, (Permission("allow", path_exact="/admin"),))
    assert not decide(Intentions((denying,), False), WEB, mounted).allowed
    assert not decide(Intentions((allowing,), False), WEB, mounted).allowed


def test_plain_paths_are_allowed_as_they_are_written() -> None:
    allowed = Permission("allow", path_prefix="/public/")
    assert all(permits(allowed, path=path) for path in ("/public/", "/public/a", "/public/a//b", "/public/.well-known"))
    assert permits(Permission("allow", path_exact="/"), path="/")
    assert permits(Permission("allow", path_regex="/[a-z]+/[0-9]+"), path="/reviews/42")
    assert not permits(Permission("allow", path_regex="/[a-z]+"), path="/reviews/42")


@pytest.mark.parametrize("expression", ["(a+)+$", "(", "(?=a)"])
def test_an_expression_that_cant_be_judged_denies(expression: str) -> None:
    assert not permits(Permission("deny", path_regex=expression))
    assert not permits(Permission("allow", path_regex=expression))


def test_a_text_too_long_for_an_expression_is_denied() -> None:
    path = "/" + "a" * MAX_MATCHED
    assert not permits(Permission("deny", path_regex="/b"), path=path)
    assert not permits(Permission("allow", path_regex="/a*"), path=path)


def test_methods_are_compared_in_any_case() -> None:
    assert not permits(Permission("deny", methods=("POST", "PUT")), method="post")
    assert permits(Permission("deny", methods=("POST", "PUT")), method="GET")


@pytest.mark.parametrize(
    ("condition", "value", "fits"),
    [
        (HeaderPermission("X"), "any", True),
        (HeaderPermission("X"), None, False),
        (HeaderPermission("X", invert=True), None, True),
        (HeaderPermission("X", invert=True), "any", False),
        (HeaderPermission("X", exact="a"), "a", True),
        (HeaderPermission("X", exact="a"), "A", False),
        (HeaderPermission("X", exact="a", ignore_case=True), "A", True),
        (HeaderPermission("X", exact="a", invert=True), "b", True),
        (HeaderPermission("X", exact="a", invert=True), "a", False),
        (HeaderPermission("X", prefix="ab"), "abc", True),
        (HeaderPermission("X", prefix="ab"), "cab", False),
        (HeaderPermission("X", suffix="bc"), "abc", True),
        (HeaderPermission("X", suffix="bc"), "bca", False),
        (HeaderPermission("X", regex="[0-9]+"), "42", True),
        (HeaderPermission("X", regex="[0-9]+"), "42a", False),
        (HeaderPermission("X", regex="[0-9]+", invert=True), "42a", True),
    ],
)
def test_a_condition_on_a_header_fits(condition: HeaderPermission, value: str | None, fits: bool) -> None:
    headers = {} if value is None else {"x": value}
    assert permits(Permission("allow", headers=(condition,)), headers=headers) is fits
    assert permits(Permission("deny", headers=(condition,)), headers=headers) is not fits


@pytest.mark.parametrize("sent", ["admin,x", "x,admin", "x,admin,y", "admin,", ",admin", ",".join(["x"] * 1000)])
@pytest.mark.parametrize(
    "condition",
    [
        HeaderPermission("x-role", exact="admin"),
        HeaderPermission("x-role", exact="guest", invert=True),
        HeaderPermission("x-role", regex="adm.*"),
    ],
)
def test_a_header_that_comes_several_times_avoids_no_denial(sent: str, condition: HeaderPermission) -> None:
    assert not permits(Permission("deny", headers=(condition,)), headers={"x-role": sent})


@pytest.mark.parametrize("sent", ["theirs,mine", "mine,theirs", ",".join(["mine"] * 1000)])
@pytest.mark.parametrize(
    "condition",
    [
        HeaderPermission("x-tenant", prefix="mine"),
        HeaderPermission("x-tenant", suffix="mine"),
        HeaderPermission("x-tenant", regex=".*mine"),
        HeaderPermission("x-tenant", exact="theirs", invert=True),
    ],
)
def test_a_header_that_comes_several_times_gets_no_more_than_is_allowed(sent: str, condition: HeaderPermission) -> None:
    assert not permits(Permission("allow", headers=(condition,)), headers={"x-tenant": sent})


def test_a_comma_within_a_value_makes_no_two_of_it() -> None:
    agent = HeaderPermission("user-agent", prefix="Mozilla")
    assert permits(Permission("allow", headers=(agent,)), headers={"user-agent": "Mozilla (KHTML, like Gecko)"})


def test_a_value_that_isnt_there_isnt_the_wanted_one_when_that_denies() -> None:
    condition = HeaderPermission("x-secret", exact="open", invert=True)
    assert not permits(Permission("deny", headers=(condition,)))
    assert not permits(Permission("allow", headers=(condition,)))


@pytest.mark.parametrize("invert", [True, False])
def test_a_header_whose_expression_cant_be_judged_denies(invert: bool) -> None:
    condition = HeaderPermission("x", regex="(a+)+$", invert=invert)
    assert not permits(Permission("deny", headers=(condition,)), headers={"x": "b"})
    assert not permits(Permission("allow", headers=(condition,)), headers={"x": "b"})
