"""Interleaved rounds: what is compared is measured in turn, so that a drifting machine drifts for all alike."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping

__all__ = ["interleave", "spread"]


def interleave(rounds: int, subjects: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """The results of `rounds` rounds in which each subject has one turn; the first round is not counted."""
    results: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        for name, measure in subjects.items():
            gc.collect()
            value = measure()
            if number:
                results[name].append(value)
    return results


def spread(values: list[float]) -> str:
    """`median [lowest … highest]`."""
    return f"{statistics.median(values):8.2f}  [{min(values):.2f} … {max(values):.2f}]"
