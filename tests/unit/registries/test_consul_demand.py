"""What Consul is asked follows from what it has answered; the snapshot is what the answers make."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshlib.registries.base import Instance, Update
from meshlib.registries.consul.demand import Scope, demanded, snapshot_of, unanswered
from meshlib.registries.consul.documents import Documents
from meshlib.registries.consul.entries import Found, Health
from meshlib.registries.consul.questions import CONNECT_OFF, RIGHTS, Known, Question
from meshlib.registries.consul.rights import Right
from meshlib.resources.intentions import Intention

REVIEWS = "reviews.default.svc.cluster.local"
CONFIGS = 5

CHAIN: dict[str, Any] = {
    "Chain": {
        "ServiceName": "reviews",
        "Namespace": "default",
        "Datacenter": "dc1",
        "Protocol": "http",
        "StartNode": "resolver:v1.reviews.default.dc1",
        "Nodes": {
            "resolver:v1.reviews.default.dc1": {
                "Type": "resolver",
                "Name": "v1.reviews.default.dc1",
                "Resolver": {"ConnectTimeout": "5s", "Target": "v1.reviews.default.dc1"},
            }
        },
        "Targets": {
            "v1.reviews.default.dc1": {
                "ID": "v1.reviews.default.dc1",
                "Service": "reviews",
                "ServiceSubset": "v1",
                "Namespace": "default",
                "Datacenter": "dc1",
                "Subset": {"Filter": "Service.Meta.version == v1", "OnlyPassing": True},
            }
        },
    }
}


def scope(*hosts: str, **more: Any) -> Scope:
    return Scope("meshlib", frozenset(hosts), **more)


def health(*ports: int, service: str = "reviews", native: str = "") -> Health:
    found = [Found(("n", f"{service}-{port}"), Instance(service, "h", port, id=str(port)), native) for port in ports]
    return Health(tuple(found), (), bool(native))


def answered(wanted: Scope, answers: dict[Question, Any]) -> Known:
    """`answers`, and to every other question that they raise the answer of an empty Consul."""
    known = dict(answers)
    empty = {
        "services": frozenset(),
        "documents": Documents((), ()),
        "config": b"",
        "health": health(),
        "roots": "x.consul",
    }
    empty |= {"intentions": "1", "match": (), "authorize": True, "rights": None}
    while missing := [question for question in demanded(wanted, known) if question not in known]:
        known.update((question, empty[question.kind]) for question in missing)
    return known


def kinds(questions: dict[Question, str]) -> list[str]:
    return sorted(question.kind for question in questions)


def test_a_process_that_calls_ten_services_asks_for_ten_and_a_constant() -> None:
    wanted = scope(*(f"s{number}.default.svc.cluster.local" for number in range(10)), serving="me")
    questions = demanded(wanted, answered(wanted, {}))
    held = [question for question in questions if question.followed]
    assert kinds(questions).count("health") == 10
    assert len(held) == 10 + CONFIGS + len(("documents", "roots", "intentions"))


def test_one_service_in_two_namespaces_is_asked_for_once() -> None:
    questions = demanded(scope(REVIEWS, "reviews.shop.svc.cluster.local"), {})
    assert kinds(questions).count("health") == 1


def test_chains_are_asked_for_while_anything_is_configured_and_anew_when_that_changes() -> None:
    wanted, config = scope(REVIEWS), Question("config", "service-router")
    chain = Question("chain", "reviews", namespace="default")
    assert chain not in demanded(wanted, answered(wanted, {}))
    one = demanded(wanted, {config: b"[1]"})[chain]
    other = demanded(wanted, {config: b"[2]"})[chain]
    assert one != other


def test_a_service_of_another_datacenter_has_no_chain_here() -> None:
    wanted = scope("reviews.service.dc2.consul")
    questions = demanded(wanted, {Question("config", "service-router"): b"[1]"})
    assert kinds(questions).count("chain") == 0
    assert Question("health", "reviews", "dc2") in questions


def test_a_subset_is_asked_for_by_its_filter_and_its_members_wear_its_label() -> None:
    wanted = scope(REVIEWS)
    chain = Question("chain", "reviews", namespace="default")
    members = Question("health", "reviews", "", "Service.Meta.version == v1", passing=True)
    known = answered(
        wanted,
        {
            Question("config", "service-resolver"): b"[1]",
            chain: chain.read(msgspec.json.encode(CHAIN)),
            Question("health", "reviews"): health(1, 2),
            members: health(2),
        },
    )
    assert members in demanded(wanted, known)
    update = snapshot_of(wanted, known)
    assert [dict(one.labels) for one in update.instances] == [{}, {"consul-subset/v1": "true"}]
    assert update.sources
    assert update.asked == {REVIEWS}
    half = {question: answer for question, answer in known.items() if question != members}
    assert snapshot_of(wanted, half).asked == frozenset()


def test_the_trust_domain_is_asked_for_when_somebody_has_an_identity_of_it() -> None:
    wanted, reviews = scope(REVIEWS), Question("health", "reviews")
    assert "roots" not in kinds(demanded(wanted, {reviews: health(1)}))
    known = {reviews: health(1, native="/ns/default/dc/dc1/svc/reviews")}
    assert "roots" in kinds(demanded(wanted, known))
    (instance,) = snapshot_of(wanted, answered(wanted, known)).instances
    assert instance.identity == "spiffe://x.consul/ns/default/dc/dc1/svc/reviews"
    (without,) = snapshot_of(wanted, answered(wanted, known | {Question("roots"): CONNECT_OFF})).instances
    assert without.identity == ""


def test_no_snapshot_is_made_without_what_all_of_it_depends_on() -> None:
    wanted = scope(REVIEWS, serving="me")
    known = answered(wanted, {})
    for question in known:
        less = {other: answer for other, answer in known.items() if other != question}
        assert bool(unanswered(wanted, less, demanded(wanted, less))) == (question.kind not in {"health", "rights"})


def test_a_service_that_is_not_answered_yet_is_not_in_what_was_asked() -> None:
    other = "other.default.svc.cluster.local"
    wanted = scope(REVIEWS, other, "*.example")
    known = {question: answer for question, answer in answered(wanted, {}).items() if question.name != "other"}
    assert snapshot_of(wanted, known).asked == {REVIEWS, "*.example"}


def test_of_everything_nothing_is_said_of_services_that_are_not_answered_yet() -> None:
    wanted = scope(everything=True)
    whole = answered(wanted, {Question("services"): frozenset({"reviews", "ratings"})})
    assert snapshot_of(wanted, whole).asked is None
    part = {question: answer for question, answer in whole.items() if question != Question("health", "reviews")}
    assert snapshot_of(wanted, part).asked == {"ratings.default.svc.cluster.local"}


def test_everything_is_what_the_catalog_lists_and_all_of_it_is_asked() -> None:
    wanted = scope(everything=True)
    services = Question("services").read(b'{"consul": [], "Reviews": ["tag"]}')
    update = snapshot_of(wanted, answered(wanted, {Question("services"): services}))
    assert services == {"reviews"}
    assert update.asked is None


def test_too_many_services_are_not_watched_and_that_is_said() -> None:
    wanted = scope(*(f"s{number}.default.svc.cluster.local" for number in range(5)), limit=3)
    known = answered(wanted, {})
    assert kinds(demanded(wanted, known)).count("health") == 3
    update = snapshot_of(wanted, known)
    assert len(update.asked or ()) == 3
    assert "5 services are wanted; only 3" in update.warnings[0]


def intended(**answers: Any) -> Update:
    wanted = scope(serving="me")
    given = {Question(kind, "me" if kind in {"match", "authorize"} else ""): said for kind, said in answers.items()}  # type: ignore[arg-type]
    return snapshot_of(wanted, answered(wanted, given))


def test_intentions_have_the_rules_and_the_default() -> None:
    rules = (Intention("web", "deny"),)
    found = intended(match=rules, authorize=False).intentions
    assert found is not None
    assert (found.rules, found.default_allow) == (rules, False)
    allowing = intended(match=rules, authorize=True).intentions
    assert allowing is not None
    assert allowing.default_allow
    decided_by_a_rule = intended(match=rules, authorize=None).intentions
    assert decided_by_a_rule is not None
    assert not decided_by_a_rule.default_allow


def test_without_a_ca_there_are_no_intentions() -> None:
    assert intended(roots=CONNECT_OFF).intentions is None
    assert snapshot_of(scope(), answered(scope(), {})).intentions is None


def test_who_is_allowed_by_default_is_asked_with_a_caller_of_the_trust_domain_that_nobody_is() -> None:
    body = msgspec.json.decode(Question("authorize", "me").body({Question("roots"): "x.consul"}))
    assert body["Target"] == "me"
    assert body["ClientCertURI"].startswith("spiffe://x.consul/ns/default/dc/")


def rights_asked(wanted: Scope, known: Known) -> set[tuple[str, str]]:
    body = msgspec.json.decode(RIGHTS.body({}, demanded(wanted, known)[RIGHTS]))
    assert {one["Access"] for one in body} == {"read"}
    return {(one["Resource"], one["Segment"]) for one in body}


def test_the_rights_that_are_asked_about_are_those_that_the_answers_need() -> None:
    assert rights_asked(scope(), {}) == {("key", "meshlib/")}
    called = {("key", "meshlib/"), ("node", ""), ("service", "reviews")}
    assert rights_asked(scope(REVIEWS), {}) == called
    assert rights_asked(scope(REVIEWS, "reviews.service.dc2.consul"), {}) == called
    assert rights_asked(scope(everything=True), {}) == {("key", "meshlib/"), ("node", ""), ("service", "")}


def test_a_right_that_is_lacking_is_said_as_the_rule_that_gives_it_and_stands_in_nothings_way() -> None:
    wanted = scope(REVIEWS)
    answer = b"""[{"Resource": "service", "Segment": "reviews", "Access": "read", "Allow": false},
        {"Resource": "key", "Segment": "meshlib/", "Access": "read", "Allow": true},
        {"Resource": "node", "Access": "read", "Allow": false}]"""
    known = answered(wanted, {RIGHTS: RIGHTS.read(answer)})
    warnings = snapshot_of(wanted, known).warnings
    assert 'needs service "reviews" { policy = "read" }' in warnings[0]
    assert 'needs node_prefix "" { policy = "read" }' in warnings[1]
    assert len(warnings) == 2
    assert Right("key", "meshlib/").rule == 'key_prefix "meshlib/" { policy = "read" }'
    unasked = {question: answer for question, answer in known.items() if question != RIGHTS}
    assert not unanswered(wanted, unasked, demanded(wanted, unasked))
    assert snapshot_of(wanted, unasked).warnings == ()


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("services", b"null"),
        ("services", b"[]"),
        ("config", b"null"),
        ("config", b"{}"),
        ("documents", b"null"),
        ("documents", b"[{}]"),
        ("roots", b"{}"),
        ("intentions", b"null"),
        ("match", b"[]"),
        ("authorize", b"{}"),
        ("chain", b"{}"),
        ("rights", b"null"),
        ("rights", b"[{}]"),
    ],
)
def test_what_is_no_answer_is_refused(kind: Any, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Question(kind, "x").read(data)
