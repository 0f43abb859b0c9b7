"""The options that several verbs share."""

from __future__ import annotations

import argparse

__all__ = ["add_files", "add_registry"]


def add_registry(parser: argparse.ArgumentParser, default: str | None = argparse.SUPPRESS) -> None:
    """Add the registry and the namespace; given to a verb they win over those in front of it."""
    parser.add_argument(
        "--registry", metavar="URL", default=default,
        help="sqlite:///path, file:///directory-or-file or consul://host:port "
        "(default: MESHLIB_REGISTRY, else the user's embedded one)",
    )  # fmt: skip
    parser.add_argument(
        "-n", "--namespace", metavar="NAME", default=default, help="default: MESHLIB_NAMESPACE, else `default`"
    )


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add `-f` to a verb."""
    parser.add_argument(
        "-f", "--filename", metavar="FILE", action="append", default=[],
        help="a file, a directory (its .yaml, .yml and .json files) or - for stdin; may be given several times",
    )  # fmt: skip
