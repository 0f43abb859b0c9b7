"""What types can't say of InboundPolicy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from meshlib.resources.documents import Path
from meshlib.resources.inbound import InboundPolicySpec
from meshlib.resources.shapes import Finding, check_labels

__all__ = ["check_inbound_policy"]


def check_inbound_policy(spec: InboundPolicySpec, raw: Mapping[str, Any], at: Path) -> Iterator[Finding]:
    """The findings in an InboundPolicy; `raw` is the spec as written."""
    chosen = spec.selector.match_labels if spec.selector is not None else {}
    yield from check_labels(chosen, (*at, "selector", "matchLabels"))
