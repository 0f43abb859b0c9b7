"""Processes share a limit on a real Redis, exactly; while it is away, nothing hangs and `onError` holds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from meshlib import Mesh
from meshlib.agent.counting import LONGEST_RETRY, Away
from meshlib.agent.redislimits import RedisLimits, parse_address
from meshlib.policy.ratelimit import Level, Spending
from tests.integration.workers.fleet import Worker
from tests.support import eventually
from tests.support.inbound import Kind, Side, get
from tests.support.parts import part
from tests.support.redis import RedisServer

RATE, BURST = 200, 100
"""Of the worker's limit."""

LIMIT = """
apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {name: limits}
spec: {rateLimits: [{name: shared, requests: 2, per: 1h, scope: GLOBAL, onError: %s}]}
"""

SHORT = 4.0
"""Seconds in which a hundred requests come through that wait for nothing; each waits 50 ms where it waits."""


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


MakeSide = Callable[..., Side]


@pytest.fixture
def side(kind: Kind, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeSide]:
    """Makes a middleware whose limits are on the Redis; it waits longer than the default, for a busy machine's sake."""
    with contextlib.ExitStack() as stack:

        def make(on_error: str = "ALLOW", timeout: str = "3s") -> Side:
            monkeypatch.setenv("MESHLIB_LIMITS", f"{redis.url}?timeout={timeout}")
            made = Side(kind, LIMIT % on_error, identity=False)
            stack.callback(made.mesh.close)
            return made

        yield make


def statuses(side: Side, number: int) -> list[int]:
    return [side.ask(get()).status for _ in range(number)]


def test_twenty_processes_share_a_limit_within_a_hundredth(redis: RedisServer) -> None:
    url = f"{redis.url}?timeout=5s"
    workers = [Worker("limited", kind, "10", "25", MESHLIB_LIMITS=url) for kind in ("asgi", "wsgi")]
    with contextlib.ExitStack() as stack:
        for worker in workers:
            stack.callback(worker.end)
        assert [worker.line() for worker in workers] == ["ready"] * 2
        begin = time.monotonic() + 1.0
        for worker in workers:
            worker.say(f"{begin} {begin + 5.0}")
        found = [json.loads(worker.line()) for worker in workers]
    assert {status for one in found for status in one["statuses"]} == {"200", "429"}
    let_in = sorted(at for one in found for at in one["let_in"])
    assert len(let_in) <= 1.01 * (BURST + RATE * (let_in[-1] - begin))
    # At first the bucket is full: what flows in then flows over.
    steady = [at for at in let_in if begin + 1.0 <= at < begin + 5.0]
    assert len(steady) == pytest.approx(RATE * 4.0, rel=0.01)


def test_two_middlewares_share_one_bucket_and_the_caller_hears_of_it(side: MakeSide, redis: RedisServer) -> None:
    one, other = side(), side()
    first, second, third = one.ask(get()), other.ask(get()), one.ask(get())
    assert [reply.status for reply in (first, second, third)] == [200, 200, 429]
    assert (first.headers["ratelimit-remaining"], second.headers["ratelimit-remaining"]) == ("1", "0")
    assert int(third.headers["retry-after"]) == pytest.approx(1800, abs=5)
    assert redis.keys() == 1
    assert one.mesh.status().limits_error == ""


@pytest.mark.parametrize(("on_error", "status"), [("ALLOW", 200), ("DENY", 503)])
def test_a_redis_that_was_killed_holds_up_nobody_and_counts_when_it_is_back(
    side: MakeSide, redis: RedisServer, on_error: str, status: int
) -> None:
    made = side(on_error)
    assert statuses(made, 3) == [200, 200, 429]
    redis.kill()
    began = time.monotonic()
    assert statuses(made, 100) == [status] * 100
    assert time.monotonic() - began < SHORT
    assert "is away" in made.mesh.status().limits_error
    redis.start()
    eventually(lambda: not made.mesh.status().limits_error, 10 * LONGEST_RETRY)
    assert statuses(made, 3) == [200, 200, 429], "the new one knows nothing of before, nor our script"


@pytest.mark.parametrize(("on_error", "status"), [("ALLOW", 200), ("DENY", 503)])
def test_a_redis_that_hangs_holds_up_nobody_for_long_and_counts_when_it_goes_on(
    side: MakeSide, redis: RedisServer, on_error: str, status: int
) -> None:
    made = side(on_error, "50ms")
    eventually(lambda: made.ask(get()).status == 200 and not made.mesh.status().limits_error)
    redis.pause()
    try:
        began = time.monotonic()
        assert statuses(made, 100) == [status] * 100
        assert time.monotonic() - began < SHORT
    finally:
        redis.resume()
    eventually(lambda: not made.mesh.status().limits_error, 10 * LONGEST_RETRY)
    eventually(lambda: made.ask(get()).status == 429)


def test_a_redis_that_hangs_from_the_start_holds_up_nobody_for_long(side: MakeSide, redis: RedisServer) -> None:
    redis.pause()
    try:
        made = side(timeout="50ms")
        began = time.monotonic()
        assert statuses(made, 100) == [200] * 100
        assert time.monotonic() - began < SHORT
    finally:
        redis.resume()


def test_many_requests_at_one_time_wait_together_for_a_redis_that_hangs(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHLIB_LIMITS", redis.url)
    made = Side("asgi", LIMIT % "ALLOW", identity=False)

    async def at_once() -> list[int]:
        return [reply.status for reply in await asyncio.gather(*(made.aask(get()) for _ in range(200)))]

    with contextlib.closing(made.mesh):
        assert statuses(made, 1) == [200]
        redis.pause()
        try:
            began = time.monotonic()
            assert asyncio.run(at_once()) == [200] * 200
            assert time.monotonic() - began < SHORT
        finally:
            redis.resume()


@pytest.fixture
def limits(redis: RedisServer) -> Iterator[RedisLimits]:
    made = RedisLimits(parse_address(redis.url, "the test"), "test:")
    yield made
    made.close()


SLOW, OTHER = Spending("slow", 2, 0.001), Spending("other", 9, 0.001)


def levels(limits: RedisLimits, *spendings: Spending) -> list[Level]:
    [answer] = limits.count([spendings])
    assert not isinstance(answer, str), answer
    return [level for level in answer if level is not None]


def enough(limits: RedisLimits, *spendings: Spending) -> list[bool]:
    return [level[0] for level in levels(limits, *spendings)]


def left(limits: RedisLimits, spending: Spending) -> float:
    """Tokens that are left once another is taken."""
    return levels(limits, spending)[0][1]


def test_a_request_draws_from_every_shared_bucket_or_from_none(limits: RedisLimits) -> None:
    assert [enough(limits, SLOW, OTHER) for _ in range(4)] == [[True, True]] * 2 + [[False, True]] * 2
    assert left(limits, OTHER) == pytest.approx(6, abs=0.1)


def test_a_shared_dry_run_keeps_nobody_from_the_others(limits: RedisLimits) -> None:
    dry = SLOW._replace(enforced=False)
    assert [enough(limits, dry, OTHER) for _ in range(3)] == [[True, True]] * 2 + [[False, True]]
    assert left(limits, OTHER) == pytest.approx(5, abs=0.1)


def test_another_size_keeps_the_share_that_was_left_there(limits: RedisLimits) -> None:
    enough(limits, SLOW)
    assert left(limits, SLOW._replace(size=200)) == pytest.approx(99, abs=1)


def test_a_bucket_that_is_full_again_takes_no_room(limits: RedisLimits, redis: RedisServer) -> None:
    quick = Spending("quick", 2, 20.0)
    assert enough(limits, quick) == [True]
    assert redis.keys() == 1
    eventually(lambda: redis.keys() == 0)


def test_a_key_that_holds_something_else_is_said_and_the_others_are_counted(
    limits: RedisLimits, redis: RedisServer
) -> None:
    redis.ask("LPUSH", "test:slow", "x")
    wrong, right = limits.count([(SLOW,), (OTHER,)])
    assert isinstance(wrong, str)
    assert "WRONGTYPE" in wrong
    assert not isinstance(right, str)
    redis.ask("SET", "test:garbled", "x")
    assert enough(limits, Spending("garbled", 1, 1.0)) == [True]


def test_a_socket_and_a_password_do(tmp_path: Path) -> None:
    with contextlib.closing(RedisServer(part("redis"), tmp_path, password="s3cret")) as server:
        server.start()
        for url in (server.url, f"unix://:s3cret@{server.socket}"):
            store = RedisLimits(parse_address(url, "the test"), "test:")
            with contextlib.closing(store):
                assert enough(store, OTHER) == [True]


def test_tls_is_spoken_with_whom_the_named_authority_vouches_for(tmp_path: Path) -> None:
    ours, another = trustme.CA(), trustme.CA()
    certificate = tmp_path / "redis.pem"
    ours.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    ours.cert_pem.write_to_path(tmp_path / "ours.pem")
    another.cert_pem.write_to_path(tmp_path / "another.pem")
    with contextlib.closing(RedisServer(part("redis"), tmp_path, certificate=certificate)) as server:
        server.start()

        def counted(host: str, authority: str) -> list[bool]:
            url = f"rediss://{host}:{server.tls_port}?ca_file={tmp_path / authority}"
            with contextlib.closing(RedisLimits(parse_address(url, "the test"), "test:")) as store:
                return enough(store, OTHER)

        assert counted("127.0.0.1", "ours.pem") == [True]
        for host, authority in (("127.0.0.1", "another.pem"), ("localhost", "ours.pem")):
            with pytest.raises(Away, match="certificate verify failed"):
                counted(host, authority)


def test_a_wrong_password_is_said_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(RedisServer(part("redis"), tmp_path, password="s3cret")) as server:
        server.start()
        with contextlib.closing(Mesh("memory:", limits=server.url.replace("s3cret", "gu3ss"))) as mesh:
            assert mesh.counts.count([OTHER]) == [None]
            assert "AuthenticationError" in mesh.status().limits_error
            assert "gu3ss" not in caplog.text + mesh.status().limits_error
