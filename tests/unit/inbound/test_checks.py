"""What an external authorizer is asked, and what its answer comes to."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.inbound.checks import MOST_HEADERS, Question, question_of, said_of
from meshlib.inbound.denials import Permit
from meshlib.inbound.effects import Ask, Said
from meshlib.policy.arriving import Arriving
from meshlib.resources import ExtensionProvider, HTTPAuthorizer

CALLER = "mesh.test/ns/default/sa/web"
SENT = [
    (b"host", b"reviews"),
    (b"authorization", b"Basic abc"),
    (b"x-team", b"red"),
    (b"x-team-lead", b"ann"),
    (b"x-other", b"no"),
    (b"connection", b"x-team"),
    (b"x-forwarded-for", b"1.1.1.1"),
    (b"x-forwarded-client-cert", b"URI=spiffe://mesh.test/ns/default/sa/admin"),
    (b"x-meshlib-check", b"1"),
]


def asked(
    *,
    target: bytes = b"/a/b?c=d",
    headers: Any = SENT,
    principal: str = "",
    permit: Permit | None = None,
    body: bytes | None = None,
    partial: bool = False,
    **told: Any,
) -> Question | Said:
    arriving = Arriving(
        "PUT",
        target,
        headers,
        seen=target.partition(b"?")[0].decode(),
        principal=principal,
        source_ip="192.0.2.7",
    )
    provider = ExtensionProvider("opa", HTTPAuthorizer("auth/opa.example", 8181, **told))
    return question_of(Ask(provider, arriving, permit, body, partial))


def headers_of(found: Question | Said) -> dict[str, str]:
    assert isinstance(found, Question)
    names = [name for name, _ in found.headers]
    assert len(names) == len(set(names))
    return {name.decode(): value.decode() for name, value in found.headers}


def test_the_request_is_asked_about_without_what_nobody_named() -> None:
    found = asked()
    assert isinstance(found, Question)
    assert (found.method, found.url, found.body) == ("PUT", "http://opa.example:8181/a/b?c=d", None)
    assert headers_of(found) == {
        "host": "reviews",
        "authorization": "Basic abc",
        "x-forwarded-for": "192.0.2.7",
        "x-meshlib-check": "2",
    }


def test_named_headers_go_along_and_those_of_the_connection_never() -> None:
    found = headers_of(asked(include_request_headers_in_check=("X-Team*", "connection", "x-forwarded-for")))
    assert {name for name in found if name.startswith("x-team")} == {"x-team", "x-team-lead"}
    assert "connection" not in found
    assert found["x-forwarded-for"] == "192.0.2.7"


@pytest.mark.parametrize(("named", "principal"), [((), CALLER), (("x-forwarded-client-cert",), "")])
def test_who_calls_is_told_only_where_it_is_asked_for_and_known(named: tuple[str, ...], principal: str) -> None:
    found = asked(include_request_headers_in_check=named, principal=principal)
    assert "x-forwarded-client-cert" not in headers_of(found)


def test_who_calls_is_told_as_it_was_verified() -> None:
    found = asked(include_request_headers_in_check=("x-forwarded-client-cert",), principal=CALLER)
    assert headers_of(found)["x-forwarded-client-cert"] == f"URI=spiffe://{CALLER}"


def test_what_the_document_adds_goes_before_what_the_caller_sent() -> None:
    more = {"X-Team": "ours", "Authorization": "Bearer ours"}
    found = headers_of(asked(include_request_headers_in_check=("x-team",), include_additional_headers_in_check=more))
    assert (found["x-team"], found["authorization"]) == ("ours", "Bearer ours")


def test_the_authorizer_sees_the_headers_that_the_application_would() -> None:
    permit = Permit()
    permit.add.append((b"x-user", b"ann"))
    permit.remove.add(b"authorization")
    found = headers_of(asked(permit=permit, include_request_headers_in_check=("x-user",)))
    assert found["x-user"] == "ann"
    assert "authorization" not in found


@pytest.mark.parametrize(("partial", "said"), [(False, "false"), (True, "true")])
def test_a_body_comes_with_whether_it_is_whole(partial: bool, said: str) -> None:
    found = asked(body=b"x", partial=partial)
    assert isinstance(found, Question)
    assert found.body == b"x"
    assert headers_of(found)["x-envoy-auth-partial-body"] == said


def test_the_path_is_asked_about_behind_the_prefix_and_written_so_that_it_can_be_sent() -> None:
    found = asked(target=b'/a b/caf?q="\xff"', path_prefix="/check")
    assert isinstance(found, Said)  # no server would have let it come so
    found = asked(target=b'/caf?q="\xff"', path_prefix="/check")
    assert isinstance(found, Question)
    assert found.url == "http://opa.example:8181/check/caf?q=%22%FF%22"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"host", b"a"), (b"host", b"b")], 400),
        ([(b"host", b"a"), (b"script_name", b"/x")], 400),
        ([(b"host", b"a"), (b"x-meshlib-check", b"3")], 403),
    ],
)
def test_what_may_be_read_otherwise_or_goes_round_in_circles_is_not_asked(headers: Any, status: int) -> None:
    found = asked(headers=headers)
    assert isinstance(found, Said)
    assert found.status == status


FEW = [(b"X-User", b"ann"), (b"Content-Type", b"text/plain"), (b"Connection", b"close")]
MANY = [(b"x-a", b"b")] * (MOST_HEADERS + 1)


@pytest.mark.parametrize(
    ("status", "headers", "body", "comes_to"),
    [
        (200, FEW, b"yes", 200),
        (200, FEW, None, 200),
        (403, FEW, b"no", 403),
        (403, FEW, None, 403),
        (403, MANY, b"no", 403),
        (200, MANY, b"yes", None),
        (500, FEW, b"", None),
        (503, FEW, None, None),
    ],
)
def test_a_refusal_stays_one_whatever_else_is_wrong(
    status: int, headers: Any, body: bytes | None, comes_to: int | None
) -> None:
    said = said_of(status, headers, body)
    assert said.status == comes_to
    assert bool(said.why) == (comes_to is None or headers is MANY or (body is None and status != 200))


def test_headers_of_the_answer_are_in_lower_case_and_without_its_connection() -> None:
    assert said_of(200, FEW, b"yes") == Said(200, [(b"x-user", b"ann"), (b"content-type", b"text/plain")], b"yes")
    assert said_of(403, FEW, None).headers == [(b"x-user", b"ann")]
