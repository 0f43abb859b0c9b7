"""Consul's answers about intentions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshlib.registries.consul.intentions import MAX_RULES, default_allowed, parse
from meshlib.resources import HeaderPermission, Intention, Permission

# As Consul 1.8.7 answers.
DENY = {
    "ID": "e434b31a-4901-388f-cf97-31dde2fd5ed6", "Description": "", "SourceNS": "default", "SourceName": "api",
    "DestinationNS": "default", "DestinationName": "web", "SourceType": "consul", "Action": "deny", "DefaultAddr": "",
    "DefaultPort": 0, "Meta": {}, "Precedence": 9, "CreateIndex": 14, "ModifyIndex": 14,
}  # fmt: skip
ALLOW = DENY | {"SourceName": "*", "DestinationName": "*", "Action": "allow", "Precedence": 5}


def parsed(*entries: dict[str, Any]) -> tuple[Intention, ...]:
    return parse(json.dumps({"web": entries}).encode(), "web")


def permitted(*permissions: dict[str, Any], **more: Any) -> tuple[Permission, ...]:
    [rule] = parsed({"SourceName": "api", "Precedence": 9, "Permissions": permissions, **more})
    assert rule.action is None
    return rule.permissions


def test_rules_come_by_precedence() -> None:
    assert parsed(ALLOW, DENY) == (Intention("api", "deny"), Intention("*", "allow"))


def test_a_service_without_intentions_has_no_rules() -> None:
    assert parse(b'{"web":null}', "web") == ()
    assert parsed() == ()


@pytest.mark.parametrize("action", ["", "ALLOW", "permit", None, 1])
def test_an_action_that_isnt_known_denies(action: Any) -> None:
    assert parsed(DENY | {"Action": action}) == (Intention("api", "deny"),)


def test_permissions_are_taken_as_written() -> None:
    http = {
        "PathPrefix": "/v1", "Methods": ["get"],
        "Header": [{"Name": "x", "Exact": "a", "Invert": True, "IgnoreCase": True}, {"Name": "y", "Present": True}],
    }  # fmt: skip
    assert permitted({"Action": "allow", "HTTP": http}, {"Action": "deny", "HTTP": {"PathRegex": "/[a-z]+"}}) == (
        Permission(
            "allow",
            path_prefix="/v1",
            methods=("GET",),
            headers=(HeaderPermission("x", exact="a", invert=True, ignore_case=True), HeaderPermission("y")),
        ),
        Permission("deny", path_regex="/[a-z]+"),
    )


@pytest.mark.parametrize(
    "unknown",
    [
        {"HTTP": {"PathExact": "/a", "Weather": "fine"}},
        {"HTTP": {"PathExact": "/a", "Header": [{"Name": "x", "Contains": "b"}]}},
        {"HTTP": {"PathExact": "/a", "Header": ["x"]}},
        {"HTTP": {"PathExact": "/a", "Methods": "GET"}},
        {"HTTP": {"PathExact": "/a"}, "JWT": {"Providers": [{"Name": "auth0"}]}},
    ],
)
def test_a_condition_that_cant_be_judged_never_allows_and_still_denies(unknown: dict[str, Any]) -> None:
    assert permitted(unknown | {"Action": "allow"}) == ()
    assert permitted(unknown | {"Action": "deny"}) == (Permission("deny", path_exact="/a"),)


def test_an_intention_that_wants_a_token_allows_nothing() -> None:
    assert parsed(ALLOW | {"JWT": {"Providers": []}}) == (Intention("*", "deny"),)
    assert permitted({"Action": "allow", "HTTP": {"PathExact": "/a"}}, JWT={"Providers": []}) == ()


def test_callers_of_other_meshes_fit_no_rule() -> None:
    assert parsed(ALLOW | {"SourcePeer": "cloud"}, DENY | {"SourcePartition": "other"}) == ()
    assert parsed(ALLOW | {"SourcePartition": "default", "SourcePeer": ""}) == (Intention("*", "allow"),)


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"<html>", b"[]", b'{"api": []}', b'{"web": {}}', b'{"web": [1]}', b'{"web": [{}]}',
        b'{"web": [{"SourceName": ""}]}', b'{"web": [{"SourceName": "a", "Precedence": "9"}]}',
        b'{"web": [{"SourceName": "a", "Permissions": {"a": 1}}]}',
        b'{"web": [{"SourceName": "a", "Permissions": [1]}]}',
        b'{"web": [{"SourceName": "a", "Permissions": [{"HTTP": [1]}]}]}',
        json.dumps({"web": [ALLOW] * (MAX_RULES + 1)}).encode(),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused_whole(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"intention|permission|Permissions"):
        parse(answer, "web")


def test_the_default_is_what_no_intention_decided() -> None:
    matched = {"Authorized": True, "Reason": "Matched intention: ALLOW default/* => default/* (ID: 1, Precedence: 5)"}
    assert default_allowed(json.dumps(matched).encode()) is None
    default = {"Authorized": False, "Reason": "Default behavior configured by ACLs"}
    assert default_allowed(json.dumps(default).encode()) is False
    assert default_allowed(json.dumps(default | {"Authorized": True}).encode()) is True
    with pytest.raises(ValueError, match="authorization"):
        default_allowed(b"<html>")
