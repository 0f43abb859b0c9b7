"""Counting over the last seconds, exactly, in ten buckets."""

from __future__ import annotations

__all__ = ["Window"]

BUCKETS = 10


class Window:
    """Two running counts over a sliding window of ten buckets.

    An average that decays can hide a burst; ten buckets give the exact ratio of the last nine to ten tenths of the
    window (the choice of Linkerd's success-rate window). Not thread-safe: its owner holds a lock.

    Args:
        seconds: the length of the window.
    """

    __slots__ = ("_epoch", "_first", "_second", "first", "second", "seconds", "width")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.width = seconds / BUCKETS
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._first = [0] * BUCKETS
        self._second = [0] * BUCKETS
        self._epoch: int | None = None
        self.first = 0
        self.second = 0

    def roll(self, now: float) -> int:
        """Drop what has become too old; answers the index of the bucket of `now` (monotonic seconds).

        A thread may come with an instant it read before another moved the window on: it counts in the newest bucket.
        """
        epoch = int(now / self.width)
        last = self._epoch
        if last is not None and epoch < last:
            epoch = last
        if epoch != last:
            if last is None or epoch - last >= BUCKETS:
                self.clear()
            else:
                for old in range(last + 1, epoch + 1):
                    index = old % BUCKETS
                    self.first -= self._first[index]
                    self.second -= self._second[index]
                    self._first[index] = self._second[index] = 0
            self._epoch = epoch
        return epoch % BUCKETS

    def add(self, now: float, first: int, second: int) -> None:
        """Add to both counts at `now`."""
        epoch = int(now / self.width)
        index = epoch % BUCKETS if epoch == self._epoch else self.roll(now)
        if first:
            self._first[index] += first
            self.first += first
        if second:
            self._second[index] += second
            self.second += second
