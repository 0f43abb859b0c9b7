"""Saying in the log what a stranger can make happen as often as he likes."""

from __future__ import annotations

import logging

__all__ = ["Sparing"]

EVERY = 10.0
"""Seconds between two lines about the same thing."""

MOST = 256
"""Things remembered; what else comes meanwhile isn't said."""


class Sparing:
    """A log that says the same thing once in a while, and no more than `MOST` things.

    Args:
        log: where to.
        every: seconds of silence after each line.
    """

    def __init__(self, log: logging.Logger, every: float = EVERY) -> None:
        self._log = log
        self._every = every
        self._said: dict[object, float] = {}

    def warning(self, now: float, about: object, message: str, *args: object) -> None:
        """Write a warning, unless the same was said a moment ago.

        Args:
            now: monotonic seconds.
            about: what makes two lines the same.
            message: as for `logging`.
            *args: as for `logging`.
        """
        # Without a lock: two threads at once say it twice at worst.
        last = self._said.get(about)
        if last is not None and now - last < self._every:
            return
        if len(self._said) >= MOST:
            self._said = {one: at for one, at in self._said.items() if now - at < self._every}
        if len(self._said) < MOST:
            self._said[about] = now
            self._log.warning(message, *args)
