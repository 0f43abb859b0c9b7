"""The step of AuthorizationPolicies: what an external authorizer says, and what is made of it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from meshlib.inbound.authorizing import authorize
from meshlib.inbound.denials import Denial, Permit
from meshlib.inbound.effects import Ask, Said
from tests.support.authorization import arriving, asked
from tests.support.inbound import Reply, Request, Side, get, inbound_from

POLICY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}}}
spec:
  action: CUSTOM
  provider: {{name: {provider}}}
  rules: [{{to: [{{operation: {{paths: ["/asked*"]}}}}]}}]
---
"""

DENY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: never}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: [/asked/never]}}]}]
---
"""

PROVIDERS = """apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {name: all}
spec:
  extensionProviders:
  - name: opa
    envoyExtAuthzHttp:
      service: opa.default.svc.cluster.local
      port: 9191
      headersToUpstreamOnAllow: [x-user, "x-team-*"]
      headersToDownstreamOnAllow: [x-seen]
      headersToDownstreamOnDeny: [x-why, set-cookie]
  - name: strict
    envoyExtAuthzHttp: {service: strict.default.svc.cluster.local, port: 1, statusOnError: 503}
  - name: lax
    envoyExtAuthzHttp: {service: lax.default.svc.cluster.local, port: 1, failOpen: true}
"""

HEADERS = [
    (b"X-User", b"ann"),
    (b"x-team-blue", b"1"),
    (b"x-other", b"no"),
    (b"X-Seen", b"yes"),
    (b"x-why", b"because"),
    (b"content-type", b"text/plain"),
    (b"content-length", b"999"),
    (b"transfer-encoding", b"chunked"),
    (b"connection", b"close"),
    (b"location", b"/login"),
]


def judged(answers: Sequence[Said], *providers: str, path: str = "/asked") -> tuple[Denial | None, Permit, list[str]]:
    """What becomes of a request, with who was asked."""
    policies = "".join(POLICY.format(name=f"p{number}", provider=name) for number, name in enumerate(providers))
    authorization = inbound_from(policies + DENY + PROVIDERS).authorization
    assert authorization is not None
    permit, names, left = Permit(), [], list(answers)
    step = authorize(authorization, arriving(asked(f"GET {path}")), permit)
    if step is None or isinstance(step, Denial):
        return step, permit, names
    try:
        effect = next(step)
        while True:
            assert isinstance(effect, Ask)
            names.append(effect.provider.name)
            effect = step.send(left.pop(0))
    except StopIteration as end:
        return end.value, permit, names


def authorized(side: Side, answer: Said, request: Request) -> Reply:
    """What comes of a request that authorizers say `answer` to."""

    async def ask(_: Ask) -> Said:
        return answer

    side.gate.async_performers[Ask] = ask
    return side.ask(request)


def test_what_no_custom_policy_fits_is_asked_of_nobody() -> None:
    denial, _, names = judged([], "opa", path="/free")
    assert (denial, names) == (None, [])


def test_an_authorizer_that_allows_adds_what_it_may() -> None:
    denial, permit, names = judged([Said(200, HEADERS, b"ignored")], "opa")
    assert (denial, names) == (None, ["opa"])
    assert permit.add == [(b"x-user", b"ann"), (b"x-team-blue", b"1")]
    assert permit.reply == [(b"x-seen", b"yes")]


@pytest.mark.parametrize("name", ["x-user", "X_User", "x-team-blue"])
def test_rules_that_follow_see_what_the_authorizer_says_and_not_the_caller(name: str) -> None:
    rule = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: root}
spec: {action: ALLOW, rules: [{when: [{key: "request.headers[%s]", values: [root]}]}]}
---
"""
    documents = POLICY.format(name="p", provider="opa") + rule % name.lower().replace("_", "-") + PROVIDERS
    for says, allowed in ((b"root", True), (b"ann", False)):
        side = Side("asgi", documents)
        answer = Said(200, [(b"x-user", says), (b"x-team-blue", says)])
        reply = authorized(side, answer, get("/asked", (name, "root")))
        assert (reply.status == 200) is allowed


@pytest.mark.parametrize("answer", [Said(200), Said(None, why="away")])
def test_a_caller_sets_no_header_that_is_the_authorizers(answer: Said) -> None:
    providers = PROVIDERS.replace(
        "      headersToDownstreamOnAllow", "      failOpen: true\n      headersToDownstreamOnAllow"
    )
    side = Side("asgi", POLICY.format(name="p", provider="opa") + providers)
    reply = authorized(side, answer, get("/asked", ("x-user", "root"), ("X_User", "root"), ("x-mine", "1")))
    assert reply.seen is not None
    assert not {"x-user", "x_user"} & reply.seen.headers.keys()
    assert reply.seen.headers["x-mine"] == "1"


def test_one_that_the_authorizer_is_shown_is_its_to_judge() -> None:
    providers = PROVIDERS.replace(
        "      headersToDownstreamOnAllow",
        "      includeRequestHeadersInCheck: [X-User]\n      headersToDownstreamOnAllow",
    )
    side = Side("asgi", POLICY.format(name="p", provider="opa") + providers)
    reply = authorized(side, Said(200), get("/asked", ("x-user", "ann")))
    assert reply.seen is not None
    assert reply.seen.headers["x-user"] == "ann"


def test_without_a_list_nothing_is_added() -> None:
    _, permit, _ = judged([Said(200, HEADERS)], "strict")
    assert (permit.add, permit.reply) == ([], [])


def test_what_an_authorizer_allows_may_still_be_denied() -> None:
    denial, _, names = judged([Said(200)], "opa", path="/asked/never")
    assert denial is not None
    assert (denial.status, denial.code, denial.by, names) == (403, "RBAC", "default/never", ["opa"])


@pytest.mark.parametrize(
    ("status", "code", "detail"),
    [(400, "PATH", b"read in more than one way"), (403, "RBAC", b"the caller may not do this")],
)
def test_a_request_that_nobody_can_be_asked_about_is_told_why(status: int, code: str, detail: bytes) -> None:
    denial, _, _ = judged([Said(status, why="its path can be read in 2 ways")], "opa")
    assert denial is not None
    assert (denial.status, denial.code, detail in denial.body) == (status, code, True)


@pytest.mark.parametrize("status", [401, 403, 302, 429])
def test_an_authorizer_that_denies_answers_the_caller_itself(status: int) -> None:
    denial, permit, _ = judged([Said(status, HEADERS, b"go away")], "opa")
    assert denial is not None
    assert (denial.status, denial.body, denial.by) == (status, b"go away", "opa")
    assert dict(denial.headers) == {
        b"x-why": b"because",
        b"content-type": b"text/plain",
        b"location": b"/login",
        b"content-length": b"7",
        b"x-meshlib-reason": b"RBAC",
    }
    assert permit.add == []


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_has_none(status: int) -> None:
    denial, _, _ = judged([Said(status, HEADERS, b"go away")], "opa")
    assert denial is not None
    assert (denial.status, denial.body) == (status, b"")
    assert b"content-length" not in dict(denial.headers)


def test_without_a_list_the_caller_sees_all_headers_of_a_denial_but_those_of_its_connection() -> None:
    denial, _, _ = judged([Said(403, HEADERS)], "strict")
    assert denial is not None
    names = [name for name, _ in denial.headers]
    assert {b"x-other", b"x-user", b"location"} <= set(names)
    assert not {b"connection", b"transfer-encoding"} & set(names)
    assert names.count(b"content-length") == 1


@pytest.mark.parametrize("said", [Said(None, why="nobody is there"), Said(500), Said(503, HEADERS, b"no")])
def test_an_authorizer_that_cannot_be_asked_lets_nobody_in(said: Said) -> None:
    denial, _, _ = judged([said], "opa")
    assert denial is not None
    assert (denial.status, denial.code) == (403, "RBAC")
    why = said.why or f"it answered {said.status}"
    assert denial.reason == f"the authorizer opa couldn't be asked: {why}"
    assert "opa" not in json.loads(denial.body)["detail"]
    other, _, _ = judged([said], "strict")
    assert other is not None
    assert other.status == 503


@pytest.mark.parametrize("said", [Said(None, why="nobody is there"), Said(500)])
def test_unless_it_says_so(said: Said) -> None:
    denial, permit, _ = judged([said], "lax")
    assert denial is None
    assert [(note.kind, note.by) for note in permit.notes] == [("uncounted", "lax")]
    assert judged([said], "lax", path="/asked/never")[0] is not None


@pytest.mark.parametrize("status", [100, 199, 299, 499])
def test_an_answer_that_is_none_is_a_denial(status: int) -> None:
    denial, _, _ = judged([Said(status, HEADERS, b"x")], "opa")
    assert denial is not None
    assert (denial.status, denial.code) == (403, "RBAC")


def test_a_provider_that_is_not_there_lets_nobody_in() -> None:
    denial, _, names = judged([], "missing")
    assert denial is not None
    assert (denial.status, denial.by, names) == (403, "missing", [])
    assert "'missing'" in denial.reason


def test_every_provider_must_allow_and_each_is_asked_once() -> None:
    assert judged([Said(200), Said(200)], "opa", "strict", "opa")[::2] == (None, ["opa", "strict"])
    denial, _, names = judged([Said(200), Said(403)], "opa", "strict")
    assert denial is not None
    assert (denial.by, names) == ("strict", ["opa", "strict"])
    denial, _, names = judged([Said(403)], "opa", "strict")
    assert names == ["opa"]


def test_what_cannot_be_read_is_asked_of_nobody() -> None:
    denial, _, names = judged([], "opa", path="/asked%2Fx")
    assert denial is not None
    assert (denial.status, denial.code, names) == (400, "PATH", [])
    assert "slash" in denial.reason
    assert "slash" not in json.loads(denial.body)["detail"]
