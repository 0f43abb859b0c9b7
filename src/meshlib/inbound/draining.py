"""Going without being missed: out of the registry first, the end of the server a moment later.

A server that is told to end closes its listening socket at once, while every caller still believes it is there. So
the mesh stands before the server's own signal handlers: the first signal withdraws the service, and reaches the server
when the callers have had time to hear of it. Until then requests are served as ever.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from meshlib.inbound.presence import Presence

__all__ = ["Draining"]

DRAIN_DELAY = 0.5
"""Seconds from the signal until the server gets it: a caller looks at its registry every 0.2 s. An InboundPolicy's
`drainWait` goes before it."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)
AT_ONCE = signal.SIGURG
"""Ignored by default, so that it does no harm wherever it arrives."""

LOOPS = ("asyncio.", "uvloop")

Handler = Callable[[int, FrameType | None], object] | int | None


class Draining:
    """Stands before the handlers of SIGTERM and SIGINT.

    A second signal of the same kind goes straight through, and so does the first when nothing is registered.

    Args:
        presence: what is withdrawn.
    """

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._process = os.getpid()
        self._originals: dict[int, Handler] = {}
        self._begun: set[int] = set()
        self._delivered: set[int] = set()

    def install(self) -> None:
        """Take the place of today's handlers. Python allows it on the main thread only; elsewhere nothing is done."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if _replaceable(handler):
                self._originals[number] = handler
                signal.signal(number, self._handle)

    def install_later(self) -> Callable[[], None]:
        """Give a function that has the main thread `install`. A forked worker has yet to set its server's handlers.

        Call this on the main thread, and what it gives on any. Only a signal reaches another thread's main loop:
        SIGURG is borrowed for a moment, unless somebody has a use for it.
        """
        if signal.getsignal(AT_ONCE) is not signal.SIG_DFL:
            return lambda: None

        def install(*_: object) -> None:
            signal.signal(AT_ONCE, signal.SIG_DFL)
            self.install()

        signal.signal(AT_ONCE, install)
        return lambda: _send(AT_ONCE)

    def restore(self) -> None:
        """Put back the handlers, except where another has taken our place since."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._originals.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Whatever the main thread was doing, it may hold any lock: nothing here takes one that others hold.
        elsewhere = os.getpid() != self._process
        if elsewhere or number in self._begun or not self._presence.registered:
            self._delivered.add(number)
            self._deliver(number, frame)
        else:
            self._begun.add(number)
            threading.Thread(target=self._drain, args=(number,), name="meshlib-drain", daemon=True).start()

    def _drain(self, number: int) -> None:
        began = time.monotonic()
        self._presence.leave()
        wait = self._presence.drain_wait
        time.sleep(max(0.0, began + (DRAIN_DELAY if wait is None else wait) - time.monotonic()))
        if number not in self._delivered:
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, number)  # on the main thread it also ends a wait in the server's loop

    def _deliver(self, number: int, frame: FrameType | None) -> None:
        original = self._originals[number]
        if callable(original):
            original(number, frame)
        else:
            signal.signal(number, original)
            signal.raise_signal(number)


def _send(number: int) -> None:
    """Signal the main thread, which ends a wait in its server's loop, too."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, number)


def _replaceable(handler: Handler) -> bool:
    """Whether a handler can be called later. What a loop has been given isn't: the loop hears of the signal anyway."""
    if callable(handler):
        return not (getattr(handler, "__module__", None) or "").startswith(LOOPS)
    return handler is signal.SIG_DFL
