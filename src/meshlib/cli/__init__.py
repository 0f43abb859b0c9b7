"""The meshlib command: kubectl-like verbs, a module for each, imported when it is used."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit status: 0 done, 1 what was asked for failed, 2 wrong usage, 130 interrupted, 141 nobody reads on.
    """
    try:
        from meshlib.cli.command import run  # a process that only serves in the demo needs no parser

        return run(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
