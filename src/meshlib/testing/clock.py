"""A clock that moves only when it is told to."""

from __future__ import annotations

__all__ = ["ManualClock"]


class ManualClock:
    """Stands where `time.monotonic` stands; calling it answers the instant.

    Args:
        now: seconds it starts at.
    """

    __slots__ = ("now",)

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Seconds, as of now."""
        return self.now

    def advance(self, seconds: float) -> float:
        """Move on by `seconds` and answer the new instant.

        Raises:
            ValueError: `seconds` is negative; a monotonic clock doesn't go back.
        """
        if seconds < 0:
            raise ValueError(f"a monotonic clock can't go back by {-seconds} s; advance by 0 or more")
        self.now += seconds
        return self.now
