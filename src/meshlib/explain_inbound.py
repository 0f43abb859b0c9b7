"""Why a request to this service would come in, or wouldn't: every policy that was a candidate, and what failed.

What may come in is told, not whether there is room: limits and overload depend on the moment. The decisions are those
of admission (`meshlib.inbound.admit`), taken by the same compiled policies in the same order; a test holds both against
one table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from meshlib.identity.spiffe import SpiffeId, parse, words
from meshlib.plan.inbound import Inbound
from meshlib.policy.arriving import Arriving, Claims
from meshlib.policy.asking import unaskable
from meshlib.policy.authorize import Authorization, Condition, Policy, Rule
from meshlib.policy.intentions import Decision, decide, source_of

__all__ = ["InboundDecision", "InboundExplanation", "PolicyView", "RuleView", "Visit", "explain_inbound", "visit_of"]

ORDER = ("CUSTOM", "DENY", "ALLOW", "AUDIT")
"""In which AuthorizationPolicies are looked at."""


class RuleView(NamedTuple):
    """A rule that was looked at, by its number from 1; of one that doesn't fit, what failed."""

    number: int
    fits: bool
    failed: tuple[str, ...]


class PolicyView(NamedTuple):
    """An AuthorizationPolicy that was looked at.

    Attributes:
        name: `namespace/name`.
        action: ALLOW, DENY, AUDIT or CUSTOM.
        origin: document and line.
        dry_run: whether it is only noted.
        provider: who is asked, of CUSTOM.
        fits: whether any rule does.
    """

    name: str
    action: str
    origin: str
    dry_run: bool
    provider: str
    fits: bool
    rules: tuple[RuleView, ...]


class InboundDecision(NamedTuple):
    """What becomes of the request.

    Attributes:
        allowed: whether it comes in, as far as nobody who is asked says no.
        asks: the authorizers who are asked.
        status, code: of the denial, 0 and "" for none.
        by: the policy that decided, "" where none did.
        why: in words.
    """

    allowed: bool
    asks: tuple[str, ...] = ()
    status: int = 0
    code: str = ""
    by: str = ""
    why: str = ""


class InboundExplanation(NamedTuple):
    """What `mesh.explain_inbound` found. `str()` is the readable form.

    Attributes:
        method, target: as asked.
        caller: its SPIFFE ID, "" for none.
        version: of the configuration in force.
        readings: how its path is read; none when that can't be told.
        mode: PeerAuthentication's, for the port.
        token: what the token says, in words.
        policies: AuthorizationPolicies looked at, in the order of their actions.
        intention: what Consul's intentions say, "" without any.
        limits: rate limits that hold for it.
        decision: what becomes of it.
    """

    method: str
    target: str
    caller: str
    version: str
    readings: tuple[str, ...]
    mode: str
    token: str
    policies: tuple[PolicyView, ...]
    intention: str
    limits: tuple[str, ...]
    decision: InboundDecision

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.method} {self.target}   (configuration {self.version})"
        yield f"caller    {self.caller or 'without an identity'}"
        yield f"path      read as {' and '.join(self.readings) or 'nothing for certain'}"
        yield f"mTLS      {self.mode}"
        yield f"token     {self.token}"
        for policy in self.policies:
            yield from _policy_lines(policy)
        if self.intention:
            yield f"intention {self.intention}"
        for limit in self.limits:
            yield f"limit     {limit}"
        yield f"decision  {_words(self.decision)}"


def _policy_lines(policy: PolicyView) -> Iterator[str]:
    mark = "✓" if policy.fits else "✗"
    notes = " (dry run)" if policy.dry_run else ""
    asked = f" → {policy.provider}" if policy.provider else ""
    yield f"{policy.action.lower():9} {mark} {policy.name}{asked}{notes}   {policy.origin}".rstrip()
    if not policy.rules:
        yield "            it has no rules, and so fits nothing"
    for rule in policy.rules:
        if rule.fits:
            yield f"            rule {rule.number} fits"
        for failed in rule.failed:
            yield f"            rule {rule.number}: {failed}"


def _words(decision: InboundDecision) -> str:
    if not decision.allowed:
        return f"denied, {decision.status} {decision.code}: {decision.why}"
    asked = f", if {' and '.join(decision.asks)} allows it" if decision.asks else ""
    return f"comes in{asked}: {decision.why}"


class Visit(NamedTuple):
    """A request as it would come in, and who makes it."""

    arriving: Arriving
    caller: SpiffeId | None


def visit_of(
    method: str,
    target: str,
    *,
    caller: str = "",
    headers: Mapping[str, str] | None = None,
    address: str = "",
    port: int | None = None,
    claims: Claims | None = None,
    host: str = "",
) -> Visit:
    """A request that could come in.

    Args:
        method: as it would come.
        target: path and query, or a URL.
        caller: SPIFFE ID of the verified identity, "" for none.
        headers: of the request.
        address: the caller's IP address.
        port: of ours that it comes to.
        claims: what a verified token says; None: there is no token.
        host: where neither the headers nor the URL name one.

    Raises:
        ValueError: the caller is no SPIFFE ID, the target neither a path nor a URL, the address or the port none.
    """
    if address:
        ip_address(address)
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"{port} is no port; expected 1 to 65535")
    parts = urlsplit(target) if "://" in target else None
    if parts is not None:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = parts.netloc.rpartition("@")[2] or host
    if not target.startswith("/"):
        raise ValueError(f"{target!r} is neither a path nor a URL; write it as /api/x")
    found = parse(caller) if caller else None
    principal, namespace, account = words(found) if found is not None else ("", "", "")
    raw = [(name.lower().encode("latin-1"), value.encode("utf-8")) for name, value in (headers or {}).items()]
    if host and all(name != b"host" for name, _ in raw):
        raw.append((b"host", host.encode("latin-1")))
    arriving = Arriving(
        method,
        target.encode("utf-8"),
        raw,
        seen=unquote(target.partition("?")[0]),
        principal=principal,
        namespace=namespace,
        service_account=account,
        source_ip=address,
        port=port,
    )
    if claims is not None:
        arriving.claims = claims
        if claims.get("iss") and claims.get("sub"):
            arriving.token_principal = f"{claims['iss']}/{claims['sub']}"
    return Visit(arriving, found)


def explain_inbound(inbound: Inbound, version: str, visit: Visit) -> InboundExplanation:
    """Explain one request by what the plan says of requests coming in.

    Args:
        inbound: of the plan in force.
        version: of the configuration.
        visit: see `visit_of`.
    """
    arriving, caller = visit
    authorization = inbound.authorization
    intended = _intention(inbound, visit)
    return InboundExplanation(
        arriving.method,
        arriving.target,
        str(caller or ""),
        version,
        arriving.reading.permitting,
        inbound.mode_of(arriving.port),
        _token(inbound, arriving),
        tuple(_policies(authorization, arriving)) if authorization is not None else (),
        intended.reason if intended is not None else "",
        tuple(_limits(inbound, arriving)),
        _decision(inbound, visit),
    )


def _decision(inbound: Inbound, visit: Visit) -> InboundDecision:
    """As `meshlib.inbound.admit` judges callers, in its order."""
    if inbound.closed:
        return _denied(503, "NOCONFIG", inbound.closed)
    if visit.caller is None and inbound.mode_of(visit.arriving.port) == "STRICT":
        return _denied(403, "RBAC", "it has no identity, and PeerAuthentication says STRICT")
    decision = InboundDecision(True, why="nothing restricts it")
    if inbound.authorization is not None:
        decision = _authorized(inbound.authorization, visit.arriving)
    intended = _intention(inbound, visit)
    if intended is None or not decision.allowed:
        return decision
    if not intended.allowed:
        return _denied(403, "RBAC", intended.reason)
    return decision if inbound.authorization is not None else InboundDecision(True, why=intended.reason)


def _authorized(authorization: Authorization, arriving: Arriving) -> InboundDecision:
    if fault := authorization.fault_of(arriving):
        return _denied(400, "PATH", f"{fault}, and an AuthorizationPolicy looks at that")
    asks = tuple(authorization.customs_for(arriving))
    for name in asks:
        if name not in authorization.providers:
            why = f"a CUSTOM policy asks {name!r}, which is none of the InboundPolicy's extensionProviders"
            return _denied(403, "RBAC", why, name)
        if (refused := unaskable(arriving)) is not None:
            code = "PATH" if refused.status == 400 else "RBAC"
            return _denied(refused.status, code, f"no check by {name}: {refused.why}", name)
    ruling = authorization.judge(arriving)
    if ruling.allowed:
        return InboundDecision(True, asks, by=ruling.policy, why=ruling.why)
    return _denied(403, "RBAC", ruling.why, ruling.policy)._replace(asks=asks)


def _denied(status: int, code: str, why: str, by: str = "") -> InboundDecision:
    return InboundDecision(False, (), status, code, by, why)


def _intention(inbound: Inbound, visit: Visit) -> Decision | None:
    if inbound.intentions is None:
        return None
    source = source_of(visit.caller.path) if visit.caller is not None else None
    return decide(inbound.intentions, source, visit.arriving.view())


def _token(inbound: Inbound, arriving: Arriving) -> str:
    if arriving.claims is not None:
        return f"given as verified, {arriving.token_principal or 'without issuer and subject'}"
    if inbound.tokens is None:
        return "none is looked for"
    if inbound.tokens.find(arriving):
        return "not verified here: say with `claims` what it holds"
    return "none"


def _policies(authorization: Authorization, arriving: Arriving) -> Iterator[PolicyView]:
    for policy in sorted(authorization.policies, key=lambda one: ORDER.index(one.action)):
        rules = tuple(_rule(rule, arriving) for rule in policy.rules)
        fits = any(rule.fits for rule in rules)
        yield _view(policy, fits, rules)


def _view(policy: Policy, fits: bool, rules: tuple[RuleView, ...]) -> PolicyView:
    return PolicyView(policy.name, policy.action, policy.origin, policy.dry_run, policy.provider, fits, rules)


def _rule(rule: Rule, arriving: Arriving) -> RuleView:
    if rule.holds(arriving):
        return RuleView(rule.number, True, ())
    failed = [
        *_alternatives("from", rule.sources, arriving),
        *_alternatives("to", rule.operations, arriving),
        *(f"when {one.says} didn't hold" for one in rule.conditions if not one.holds(arriving)),
    ]
    return RuleView(rule.number, False, tuple(failed))


def _alternatives(what: str, each: Sequence[Sequence[Condition]], arriving: Arriving) -> Iterator[str]:
    missed = [[one.says for one in conditions if not one.holds(arriving)] for conditions in each]
    if all(missed):
        for number, said in enumerate(missed, 1):
            which = f"{what} {number}" if len(missed) > 1 else what
            yield f"{which}: {' and '.join(said)} didn't hold"


def _limits(inbound: Inbound, arriving: Arriving) -> Iterator[str]:
    if inbound.limits is None:
        return
    for limit in (*inbound.limits.local, *inbound.limits.shared):
        if limit.holds(arriving):
            yield f"{limit.name}: {limit.says}{'' if limit.enforced else ' (dry run)'}"
