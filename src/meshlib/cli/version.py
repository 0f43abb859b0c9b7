"""`meshlib version`."""

from __future__ import annotations

import argparse
import importlib.metadata

__all__ = ["describe", "run", "version"]

DESCRIPTION = "Print the version of meshlib."
EXAMPLES = "  meshlib version"
FAILURE = "never"


def describe(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""


def run(arguments: argparse.Namespace) -> int:
    """Print the version."""
    print(version())
    return 0


def version() -> str:
    """`meshlib 0.1.0`; the distribution is called servicemesh."""
    try:
        return f"meshlib {importlib.metadata.version('servicemesh')}"
    except importlib.metadata.PackageNotFoundError:
        return "meshlib (not installed: it runs from its source)"
