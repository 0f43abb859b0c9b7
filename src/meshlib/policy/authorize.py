"""AuthorizationPolicy, compiled: who may do what.

The order is Istio's: CUSTOM (which is asked elsewhere), then DENY, then ALLOW. Without any ALLOW policy whoever isn't
denied comes in; with one, whom one of them fits. AUDIT and dry runs are noted only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from meshlib.policy.arriving import Arriving
from meshlib.policy.attributes import Holds
from meshlib.policy.hosts import host_fault
from meshlib.policy.notes import Note
from meshlib.policy.paths import mounting_fault, read_path
from meshlib.resources import AuthorizationAction, ExtensionProvider

__all__ = ["Authorization", "Condition", "Policy", "Rule", "Ruling", "holds_all"]


class Condition(NamedTuple):
    """One condition: what it says, the test of it, and whether that looks at nothing but the caller's identity."""

    says: str
    holds: Holds
    of_identity: bool = False


class Rule(NamedTuple):
    """A rule of a policy: any of `sources`, any of `operations` and all of `conditions`.

    Attributes:
        number: in its policy, from 1.
        sources, operations: alternatives, each of conditions that must all hold; none: there is no such demand.
        conditions: of `when`.
        tests: all of it, the one first that most often tells one rule from the next.
    """

    number: int
    sources: tuple[tuple[Condition, ...], ...]
    operations: tuple[tuple[Condition, ...], ...]
    conditions: tuple[Condition, ...]
    tests: tuple[Holds, ...]

    def holds(self, arriving: Arriving) -> bool:
        """Whether it fits a request."""
        return all(test(arriving) for test in self.tests)

    def concerns(self, arriving: Arriving) -> bool:
        """Whether it may fit some request of this caller, as far as the identity alone tells."""
        fits = [all(one.holds(arriving) for one in source if one.of_identity) for source in self.sources]
        return (any(fits) or not fits) and all(one.holds(arriving) for one in self.conditions if one.of_identity)


class Policy(NamedTuple):
    """One document.

    Attributes:
        name: with its namespace, `default/web`.
        dry_run: whether it is only noted.
        provider: who is asked, of CUSTOM.
        looks_at: `paths`, `hosts` and `methods`, those of them that a rule looks at.
        origin: where the document is, "" where that isn't known.
    """

    name: str
    action: AuthorizationAction
    rules: tuple[Rule, ...]
    dry_run: bool = False
    provider: str = ""
    looks_at: frozenset[str] = frozenset()
    origin: str = ""


class Ruling(NamedTuple):
    """What the policies say of a request.

    Attributes:
        allowed: whether it may come in.
        policy, rule: which decided; "" and 0: none fits.
        why: in words, for the log.
        noted: what AUDIT policies and dry runs say of it.
    """

    allowed: bool
    policy: str = ""
    rule: int = 0
    why: str = ""
    noted: tuple[Note, ...] = ()


Case = tuple[Holds, Ruling]
"""When a rule fits, and what it says then."""

Decisive = tuple[tuple[Rule, Case], ...]
Caller = tuple[str, str, str]
"""Principal, namespace and service account: all that conditions on an identity look at."""

MOST_CALLERS = 1000
"""Callers whose rules are kept; a service has fewer."""


class Authorization:
    """The AuthorizationPolicies of one process; immutable but for what it keeps of callers.

    Args:
        policies: those that select it.
        providers: whom CUSTOM policies may name.

    Attributes:
        policies: the same, for those who explain.
        providers: the same by name.
    """

    def __init__(self, policies: Iterable[Policy], providers: Iterable[ExtensionProvider] = ()) -> None:
        self.policies = tuple(policies)
        self.providers: Mapping[str, ExtensionProvider] = {one.name: one for one in providers}
        enforced = [one for one in self.policies if not one.dry_run]
        self._custom = [one for one in enforced if one.action == "CUSTOM"]
        allowing = [one for one in enforced if one.action == "ALLOW"]
        allowed = _decisive(enforced, "ALLOW")
        self._allows = bool(allowed)
        self._deciding = _decisive(enforced, "DENY") + allowed
        self._by_caller: dict[Caller, tuple[Case, ...]] = {}
        self._otherwise = (
            Ruling(False, why=f"no rule of {_named(allowing)} fits, and nobody else may come in")
            if allowing
            else Ruling(True, why="no DENY policy fits, and there is no ALLOW policy")
        )
        self._audit = _decisive(enforced, "AUDIT")
        self._dry = tuple(one for one in self.policies if one.dry_run)
        self._noting = bool(self._audit or self._dry)
        looked_at = frozenset[str]().union(*(one.looks_at for one in enforced if one.action != "AUDIT"))
        self._paths, self._hosts, self._methods = (name in looked_at for name in ("paths", "hosts", "methods"))

    def fault_of(self, arriving: Arriving) -> str:
        """Why what a rule looks at can be read in more than one way, "" when it can't."""
        if self._paths:
            # The one place where every request's path is read; see `Arriving.__getattr__` for the others.
            arriving.reading = read_path(arriving.raw_target, arriving.seen, arriving.exact, arriving.mount)
            if fault := arriving.reading.fault or mounting_fault(arriving.raw_headers):
                return fault
        if self._methods and not arriving.method.isupper():
            return "its method isn't in upper case"
        return host_fault(arriving) if self._hosts else ""

    def customs_for(self, arriving: Arriving) -> Sequence[str]:
        """The names of the providers to be asked about a request, all of whom must allow it."""
        if not self._custom:
            return ()
        found = [one.provider for one in self._custom if any(rule.holds(arriving) for rule in one.rules)]
        return tuple(dict.fromkeys(found))

    def judge(self, arriving: Arriving) -> Ruling:
        """What DENY and ALLOW policies say of a request."""
        ruling = self._judged(arriving)
        return ruling._replace(noted=self._noted(arriving, ruling)) if self._noting else ruling

    def _judged(self, arriving: Arriving) -> Ruling:
        caller = arriving.principal, arriving.namespace, arriving.service_account
        rules = self._by_caller.get(caller)
        if rules is None:
            rules = self._rules_for(caller, arriving)
        for holds, ruling in rules:
            if holds(arriving):
                return ruling
        return self._otherwise

    def _rules_for(self, caller: Caller, arriving: Arriving) -> tuple[Case, ...]:
        """The rules that may fit a caller: of many, most are for others."""
        rules = tuple(case for rule, case in self._deciding if rule.concerns(arriving))
        if len(self._by_caller) >= MOST_CALLERS:
            self._by_caller = {}
        self._by_caller[caller] = rules
        return rules

    def _noted(self, arriving: Arriving, ruling: Ruling) -> tuple[Note, ...]:
        notes = [Note("audit", one.policy, one.why) for _, (holds, one) in self._audit if holds(arriving)]
        allowing = [policy for policy in self._dry if policy.action == "ALLOW"]
        let_in = False
        for policy in self._dry:
            rule = next((rule.number for rule in policy.rules if rule.holds(arriving)), 0)
            if rule:
                let_in = let_in or policy.action == "ALLOW"
                says = f"dry run: {policy.action} {policy.name}, rule {rule}, fits"
                notes.append(Note("dry-run", policy.name, says))
        if allowing and not let_in and not (ruling.allowed and self._allows):
            says = f"dry run: no rule of {_named(allowing)} fits, so that it would be denied"
            notes.append(Note("dry-run", allowing[0].name, says))
        return tuple(notes)


def _decisive(policies: Sequence[Policy], action: AuthorizationAction) -> Decisive:
    found = []
    for policy in policies:
        if policy.action == action:
            for rule in policy.rules:
                why = f"{action} {policy.name}, rule {rule.number}, fits"
                ruling = Ruling(action == "ALLOW", policy.name, rule.number, why)
                found.append((rule, (holds_all(rule.tests), ruling)))  # one test for all callers
    return tuple(found)


def _named(policies: Sequence[Policy]) -> str:
    shown = ", ".join(one.name for one in policies[:3])
    return f"ALLOW {shown}" + (f" and {len(policies) - 3} more" if len(policies) > 3 else "")


def holds_all(tests: Sequence[Holds]) -> Holds:
    """Whether all of `tests` hold."""
    if not tests:
        return lambda arriving: True
    if len(tests) == 1:
        return tests[0]
    first, rest = tests[0], holds_all(tests[1:])
    return lambda arriving: first(arriving) and rest(arriving)
