"""Why a request may come in, or may not."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from meshlib.explain_inbound import InboundExplanation, Visit, explain_inbound, visit_of
from meshlib.identity.spiffe import parse
from meshlib.plan.inbound import Inbound
from meshlib.resources import Intention, Intentions
from tests.support.authorization import Table, arriving, asked, documents, rows
from tests.support.inbound import SERVICE, Kind, Request, Side, inbound_from
from tests.unit.policy.authorization_cases import conditions, operations, orders, paths, sources

TABLES = [*sources.TABLES, *operations.TABLES, *paths.TABLES, *conditions.TABLES, *orders.TABLES]
WEB = "spiffe://mesh.test/ns/default/sa/web"
OTHER = "spiffe://mesh.test/ns/shop/sa/other"
CONSUL = "spiffe://mesh.test/ns/default/dc/dc1/svc/front"

DOCUMENTS = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web}
spec:
  rules:
  - from:
    - source: {principals: [cluster.local/ns/default/sa/web], notIpBlocks: [10.9.0.0/16]}
    - source: {namespaces: [ops]}
    to: [{operation: {methods: [GET], paths: ["/api/*"]}}]
    when: [{key: "request.headers[x-team]", values: [red]}]
  - to: [{operation: {paths: ["/open", "/asked/*"]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-internals}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: ["/api/internal*"]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: soon, annotations: {istio.io/dry-run: "true"}}
spec:
  action: DENY
  rules: [{from: [{source: {notPrincipals: ["*"]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask}
spec:
  action: CUSTOM
  provider: {name: authz}
  rules: [{to: [{operation: {paths: ["/asked/*"]}}]}]
---
apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {name: inbound}
spec:
  rateLimits: [{name: reads, requests: 5, match: [{method: {exact: GET}}]}]
  extensionProviders: [{name: authz, envoyExtAuthzHttp: {service: 127.0.0.1, port: 9, failOpen: true}}]
"""
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec:
  selector: {matchLabels: {app: reviews}}
  mtls: {mode: STRICT}
  portLevelMtls: {9090: {mode: PERMISSIVE}}
"""


def explained(
    method: str, target: str, *, documents: str = DOCUMENTS, address: str = "192.0.2.7", **more: Any
) -> InboundExplanation:
    visit = visit_of(method, target, host=SERVICE, address=address, **more)
    return explain_inbound(inbound_from(documents), "v7", visit)


def test_what_lets_a_request_in_is_named_with_its_document() -> None:
    found = explained("GET", "/api/x", caller=WEB, headers={"X-Team": "red"})
    assert found.decision == (True, (), 0, "", "default/web", "ALLOW default/web, rule 1, fits")
    policies = {policy.name: policy for policy in found.policies}
    assert policies["default/web"].fits
    assert "line 2" in policies["default/web"].origin
    assert not policies["default/no-internals"].fits
    assert found.limits == ("reads: 5 in 1 s, 5 at once",)


def test_of_a_rule_that_does_not_fit_each_predicate_that_failed_is_named() -> None:
    found = explained("POST", "/api/x", caller=OTHER, address="10.9.1.1")
    web = next(policy for policy in found.policies if policy.name == "default/web")
    assert web.rules[0].failed == (
        "from 1: principals [cluster.local/ns/default/sa/web] and notIpBlocks [10.9.0.0/16] didn't hold",
        "from 2: namespaces [ops] didn't hold",
        "to: methods [GET] didn't hold",
        "when request.headers[x-team] [red] didn't hold",
    )
    assert (found.decision.status, found.decision.code) == (403, "RBAC")


def test_the_policy_that_denies_is_named() -> None:
    found = explained("GET", "/api/internal/1", caller=WEB, headers={"x-team": "red"})
    assert (found.decision.by, found.decision.why) == (
        "default/no-internals",
        "DENY default/no-internals, rule 1, fits",
    )


def test_an_authorizer_is_named_and_not_asked() -> None:
    found = explained("GET", "/asked/x")
    assert found.decision.allowed
    assert found.decision.asks == ("authz",)
    assert "comes in, if authz allows it" in str(found)


def test_of_policies_and_intentions_that_let_in_the_policy_is_named() -> None:
    intentions = Intentions((Intention("front", "allow"), Intention("*", "deny")))
    only = inbound_from("")._replace(intentions=intentions)
    both = inbound_from(LETTING_IN)._replace(intentions=intentions)
    visit = visit_of("GET", "/x", caller=CONSUL)
    alone = explain_inbound(only, "v7", visit)
    assert alone.decision.why == alone.intention != ""
    assert explain_inbound(both, "v7", visit).decision.why == "ALLOW default/all, rule 1, fits"
    assert explain_inbound(both, "v7", visit_of("GET", "/x", caller=OTHER)).decision.code == "RBAC"


LETTING_IN = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: all}
spec: {rules: [{}]}
"""


def test_a_dry_run_is_shown_and_decides_nothing() -> None:
    found = explained("GET", "/open")
    assert found.decision.allowed
    assert "deny      ✓ default/soon (dry run)" in str(found)


def test_the_claims_count_as_those_of_a_verified_token() -> None:
    admins = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: admins}
spec:
  rules:
  - from: [{source: {requestPrincipals: [https://login.test/jason]}}]
    when: [{key: "request.auth.claims[a][b]", values: [c]}]
"""
    claims = {"iss": "https://login.test", "sub": "jason", "a": {"b": "c"}}
    assert explained("GET", "/", documents=admins, claims=claims).decision.allowed
    assert not explained("GET", "/", documents=admins, claims=claims | {"sub": "eve"}).decision.allowed
    assert not explained("GET", "/", documents=admins).decision.allowed


def test_the_text_reads_from_the_question_to_the_verdict() -> None:
    lines = str(explained("GET", "/api/x", caller=WEB)).splitlines()
    assert lines[0] == "GET /api/x   (configuration v7)"
    assert lines[1:5] == [
        f"caller    {WEB}",
        "path      read as /api/x",
        "mTLS      PERMISSIVE",
        "token     none is looked for",
    ]
    assert [line.split()[0] for line in lines[5:] if not line.startswith(" ")] == [
        "custom", "deny", "deny", "allow", "limit", "decision",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"caller": "web"}, {"target": "api/x"}, {"headers": {"ŝ": ""}}, {"address": "10.0.0.300"}, {"port": 0},
        {"port": 65536},
    ],
    ids=["caller", "path", "header", "address", "no port", "beyond ports"],
)  # fmt: skip
def test_rubbish_is_no_request(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"SPIFFE|neither a path|codec|10\.0\.0\.300|is no port"):
        visit_of("GET", wrong.pop("target", "/"), **wrong)


def test_a_url_names_the_host() -> None:
    arriving = visit_of("GET", "http://reviews:80/x?a=b", host="other").arriving
    assert (arriving.authority, arriving.target, arriving.seen) == ("reviews:80", "/x?a=b", "/x")


@cache
def compiled(text: str) -> Inbound:
    return inbound_from(text)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.shows)
def test_every_row_of_the_table_is_explained_as_it_is_judged(table: Table) -> None:
    inbound = compiled(documents(table))
    for row in rows(table):
        request = asked(row.request)
        visit = Visit(arriving(request), parse(request.peer) if request.peer else None)
        found = explain_inbound(inbound, "v7", visit)
        # What can't be asked about is refused: a table for policies alone says whom it would have been asked.
        asks = f"ask {found.decision.asks[0]}" if found.decision.asks else ""
        unaskable = row.verdict.startswith("ask ") and found.decision.why.startswith("no check by")
        says = {0: "allow", 403: "deny", 400: "unsafe"}[found.decision.status]
        assert unaskable or (asks or says) == row.verdict, row
        for policy in found.policies:
            for rule in policy.rules:
                assert rule.fits != bool(rule.failed), (row, policy)


CALLERS = ["", WEB, OTHER, CONSUL]
TARGETS = ["/api/x", "/api/internal", "/api/./internal", "/api//x", "/open", "/open/", "/%2e%2e/x", "/a%2fb",
           "/asked/x", "/asked//x", "/x?/api/"]  # fmt: skip
SAID = {
    "policies": (DOCUMENTS, None),
    "strict": (STRICT, None),
    "both": (f"{DOCUMENTS}---{STRICT}", None),
    "intentions": ("", Intentions((Intention("front", "allow"), Intention("*", "deny")))),
    "all of it": (f"{DOCUMENTS}---{STRICT}", Intentions((Intention("front", "allow"), Intention("*", "deny")))),
    "nothing": ("", None),
}


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.parametrize("said", SAID)
def test_what_is_explained_is_what_both_middlewares_do(said: str, kind: Kind) -> None:
    documents, intentions = SAID[said]
    # Not limits: they depend on the moment. The authorizer is away, and fails open.
    side = Side(kind, documents.replace("rateLimits", "faults: []\n  # "), intentions=intentions)
    inbound = side.mesh.plan.inbound if side.mesh.plan is not None else None
    assert inbound is not None
    for caller in CALLERS:
        for target in TARGETS:
            for method, headers in (("GET", {"x-team": "red"}), ("POST", {})):
                for port in (8080, 9090):
                    visit = visit_of(
                        method, target, caller=caller, headers=headers, address="192.0.2.7", port=port, host=SERVICE
                    )
                    decision = explain_inbound(inbound, "v7", visit).decision
                    request = Request(method, target, tuple(headers.items()), peer=caller, port=port)
                    reply = side.ask(request)
                    came = (reply.seen is not None, reply.code)
                    assert came == (decision.allowed, decision.code), (caller, target, method, port, decision)
                    if not decision.allowed:
                        assert reply.status == decision.status
    side.mesh.close()
