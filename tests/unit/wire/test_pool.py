"""Who is idle and how many are out."""

from __future__ import annotations

import time

from meshlib.wire.pool import Pool


class Fake:
    """A connection without a wire."""

    def __init__(self, pool: Pool[Fake]) -> None:
        self.pool = pool
        self.requests = 1
        self.idle_since = 0.0
        self.sound = True
        self.closed = False
        pool.opening()

    def usable(self) -> bool:
        return self.sound

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.pool.gone(self)


def counts(pool: Pool[Fake]) -> tuple[int, int]:
    return pool.idle, pool.busy


def test_the_last_one_back_goes_out_first() -> None:
    pool: Pool[Fake] = Pool(10, 0)
    first, second = Fake(pool), Fake(pool)
    assert counts(pool) == (0, 2)
    pool.give(first)
    pool.give(second)
    assert counts(pool) == (2, 0)
    assert pool.take() is second
    assert pool.take() is first
    assert pool.take() is None
    assert counts(pool) == (0, 2)


def test_one_that_is_no_longer_fit_is_closed_and_the_next_one_taken() -> None:
    pool: Pool[Fake] = Pool(10, 0)
    good, bad = Fake(pool), Fake(pool)
    pool.give(good)
    pool.give(bad)
    bad.sound = False
    assert pool.take() is good
    assert bad.closed
    assert counts(pool) == (0, 1)


def test_one_that_was_idle_for_too_long_is_closed() -> None:
    pool: Pool[Fake] = Pool(10, 0)
    old = Fake(pool)
    pool.give(old)
    old.idle_since = time.monotonic() - 11
    assert pool.take() is None
    assert old.closed
    assert counts(pool) == (0, 0)


def test_a_return_clears_out_the_one_that_has_lain_longest() -> None:
    pool: Pool[Fake] = Pool(10, 0)
    old, new = Fake(pool), Fake(pool)
    pool.give(old)
    old.idle_since = time.monotonic() - 11
    pool.give(new)
    assert old.closed
    assert counts(pool) == (1, 0)


def test_one_that_has_carried_its_share_is_closed_on_return() -> None:
    pool: Pool[Fake] = Pool(10, 2)
    connection = Fake(pool)
    pool.give(connection)
    assert pool.take() is connection
    connection.requests = 2
    pool.give(connection)
    assert connection.closed
    assert counts(pool) == (0, 0)


def test_one_that_dies_while_idle_is_forgotten() -> None:
    pool: Pool[Fake] = Pool(10, 0)
    connection = Fake(pool)
    pool.give(connection)
    connection.close()
    assert counts(pool) == (0, 0)
    assert pool.take() is None


def test_a_closed_pool_closes_the_idle_now_and_the_busy_on_return() -> None:
    pool: Pool[Fake] = Pool(10, 0)
    idle, busy = Fake(pool), Fake(pool)
    pool.give(idle)
    pool.close()
    assert (idle.closed, busy.closed) == (True, False)
    pool.give(busy)
    assert busy.closed
    assert counts(pool) == (0, 0)


def test_an_opening_that_came_to_nothing_is_not_counted() -> None:
    pool: Pool[Fake] = Pool(10, 0)
    pool.opening()
    assert counts(pool) == (0, 1)
    pool.gone(None)
    assert counts(pool) == (0, 0)
