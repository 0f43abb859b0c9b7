"""From an InboundPolicy's rateLimits to limits: whom they hold for, and by what callers are told apart."""

from __future__ import annotations

import pytest

from meshlib.policy.arriving import Arriving
from meshlib.policy.ratelimit import LONGEST_VALUE, RateLimits
from meshlib.state.inbound import InboundState
from tests.support.inbound import inbound_from

HEAD = "apiVersion: meshlib/v1\nkind: InboundPolicy\nmetadata: {name: limits}\nspec:\n  rateLimits:\n"


def limits(*lines: str, state: InboundState | None = None) -> RateLimits:
    found = inbound_from(HEAD + "\n".join(f"  - {line}" for line in lines), state=state).limits
    assert found is not None
    return found


def arriving(*headers: tuple[str, str], claims: object = None, **more: str) -> Arriving:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    target = more.pop("target", "/")
    found = Arriving("GET", target.encode(), raw, seen=target, **more)  # type: ignore[arg-type]
    found.claims = claims  # type: ignore[assignment]
    return found


def let_in(found: RateLimits, *requests: Arriving, now: float = 0.0) -> list[bool]:
    """Whether each of several requests finds a token everywhere."""
    return [all(enough for _, (enough, _), _ in found.draw(one, now)) for one in requests]


def test_without_rate_limits_there_is_nothing_to_do() -> None:
    assert inbound_from(HEAD.replace("rateLimits:", "concurrency: {maxRequests: 3}")).limits is None


def test_a_bucket_holds_the_burst_and_without_one_as_many_as_flow_in() -> None:
    both = limits("{name: a, requests: 2, per: 60s}", "{name: b, requests: 600, per: 60s, burst: 3}")
    a, b = both.local
    assert (a.size, a.rate, b.size, b.rate) == (2, 2 / 60, 3, 10.0)


def test_a_limit_holds_for_what_one_of_its_matches_fits() -> None:
    one = limits("{name: a, requests: 1, match: [{uri: {prefix: /search}}, {headers: {x-batch: {exact: '1'}}}]}")
    found = [
        len(one.draw(request, 0.0))
        for request in (arriving(target="/search?q=1"), arriving(("x-batch", "1")), arriving(target="/other"))
    ]
    assert found == [1, 1, 0]


ALICE, BOB = {"sub": "alice", "org": {"id": 7}}, {"sub": "bob", "org": {"id": 7}}


@pytest.mark.parametrize(
    ("by", "same", "other"),
    [
        ("principal: true", {"principal": "td/ns/a/sa/web"}, {"principal": "td/ns/a/sa/batch"}),
        ("claim: sub", {"claims": ALICE}, {"claims": BOB}),
        ("claim: org.id", {"claims": ALICE}, {"claims": {"org": {"id": 8}}}),
        ("claim: a.b", {"claims": {"a.b": 1, "a": {"b": 2}}}, {"claims": {"a": {"b": 1}, "a.b": 2}}),
        ("claim: groups", {"claims": {"groups": ["x", "y"]}}, {"claims": {"groups": ["x"]}}),
        ("remoteAddress: true", {"remote_ip": "192.0.2.1"}, {"remote_ip": "192.0.2.2"}),
        ("remoteAddress: true", {"remote_ip": "2001:db8::1"}, {"remote_ip": "2001:db8:0:1::1"}),
    ],
)  # fmt: skip
def test_callers_are_told_apart_by(by: str, same: dict[str, object], other: dict[str, object]) -> None:
    one = limits(f"{{name: a, requests: 1, by: [{{{by}}}]}}")
    requests = [arriving(**same), arriving(**same), arriving(**other), arriving(), arriving()]  # type: ignore[arg-type]
    assert let_in(one, *requests) == [True, False, True, True, False], "who has none shares one bucket"


def test_callers_are_told_apart_by_a_header_in_any_case_of_its_name() -> None:
    one = limits("{name: a, requests: 1, by: [{header: X-Tenant}]}")
    requests = [arriving(("x-tenant", tenant)) for tenant in ("a", "a", "b")]
    assert let_in(one, *requests) == [True, False, True]


def test_who_has_one_address_of_an_ipv6_network_has_them_all() -> None:
    one = limits("{name: a, requests: 1, by: [{remoteAddress: true}]}")
    addresses = ("2001:db8::1", "2001:db8::ffff:2", "::ffff:192.0.2.1", "192.0.2.1")
    assert let_in(one, *(arriving(remote_ip=address) for address in addresses)) == [True, False, True, False]


def test_with_several_keys_who_lacks_one_still_counts_by_the_others() -> None:
    one = limits("{name: a, requests: 1, by: [{principal: true}, {header: x-tenant}]}")
    requests = [
        arriving(principal="alice"),
        arriving(("x-tenant", "t"), principal="alice"),
        arriving(principal="alice"),
        arriving(principal="bob"),
    ]
    assert let_in(one, *requests) == [True, True, False, True]


def test_a_long_value_counts_by_its_hash_and_a_hash_is_no_value() -> None:
    one = limits("{name: a, requests: 1, by: [{header: x-key}]}")
    long = "k" * (LONGEST_VALUE + 1)
    assert let_in(one, *(arriving(("x-key", key)) for key in (long, long, long + "k"))) == [True, False, True]
    [key] = one.local[0].key(arriving(("x-key", long * 1000)))
    assert isinstance(key, bytes)
    assert len(key) <= 64


def test_a_request_draws_from_every_bucket_or_from_none() -> None:
    both = limits("{name: a, requests: 2, per: 1h}", "{name: b, requests: 1, per: 1h, by: [{principal: true}]}")
    assert let_in(both, *(arriving(principal=who) for who in ("x", "x", "x", "y", "z"))) == [
        True, False, False, True, False,
    ]  # fmt: skip


def test_what_was_drawn_for_nothing_can_be_given_back() -> None:
    one = limits("{name: a, requests: 1, per: 1h}")
    draws = one.draw(arriving(), 0.0)
    one.give_back(draws)
    one.give_back(one.draw(arriving(), 0.0))
    assert let_in(one, arriving(), arriving()) == [True, False]


def test_a_dry_run_counts_and_keeps_nobody_from_the_others() -> None:
    both = limits("{name: a, requests: 1, per: 1h, dryRun: true}", "{name: b, requests: 3, per: 1h}")
    dry, enforced = zip(*(
        [enough for _, (enough, _), _ in both.draw(arriving(), 0.0)] for _ in range(4)
    ), strict=True)  # fmt: skip
    assert dry == (True, False, False, False)
    assert enforced == (True, True, True, False)


def test_a_limit_goes_on_where_it_was_in_the_next_plan() -> None:
    state = InboundState()
    assert let_in(limits("{name: a, requests: 10, per: 1h}", state=state), *[arriving()] * 5) == [True] * 5
    wider = limits("{name: a, requests: 100, per: 1h}", "{name: b, requests: 9}", state=state)
    [(_, (_, tokens), _), _] = wider.draw(arriving(), 0.0)
    assert tokens == 49.0, "half of it was spent"


def test_a_limit_that_tells_callers_apart_by_something_else_begins_anew() -> None:
    state = InboundState()
    by = "{name: a, requests: 1, per: 1h, by: [{header: %s}]}"
    assert let_in(limits(by % "x", state=state), arriving(("x", "1"))) == [True]
    assert let_in(limits(by % "y", state=state), arriving(("y", "1"))) == [True]


def test_what_leaves_the_process_holds_no_value() -> None:
    [shared] = limits(
        "{name: per-key, requests: 9, per: 3s, burst: 5, by: [{header: x-api-key}], scope: GLOBAL}"
    ).shared
    mine, other = (shared.spending(arriving(("x-api-key", key))) for key in ("s3cret", "other"))
    assert mine.key.startswith("per-key:")
    assert "s3cret" not in mine.key
    assert mine.key != other.key
    assert (mine.size, mine.rate, mine.enforced) == (5, 3.0, True)
