"""The forms that names, labels and headers have in every kind of document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from meshlib.resources.documents import Path, show
from meshlib.resources.names import host_fault

__all__ = [
    "TOKEN",
    "Finding",
    "check_count",
    "check_header_name",
    "check_header_value",
    "check_host",
    "check_hosts",
    "check_labels",
    "check_subset_name",
]

Finding = tuple[Path, str]

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
"""A name of a header or a method (RFC 9110, 5.6.2)."""

_LABEL_KEY = re.compile(r"([a-zA-Z0-9][a-zA-Z0-9.-]{0,252}/)?[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?")
_LABEL_VALUE = re.compile(r"([a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?)?")
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def check_hosts(hosts: tuple[str, ...], at: Path) -> Iterator[Finding]:
    """One host or more, each sound."""
    if not hosts:
        yield (*at, "hosts"), "is empty; write at least one host"
    for index, host in enumerate(hosts):
        yield from check_host(host, (*at, "hosts", index), wildcard=True)


def check_host(host: str, at: Path, *, wildcard: bool) -> Iterator[Finding]:
    """A host name; "*" may stand in front where `wildcard` says so."""
    fault = host_fault(host, wildcard=wildcard)
    if fault is not None:
        yield at, f"{show(host)} {fault}"


def check_subset_name(name: str, at: Path) -> Iterator[Finding]:
    """A DNS label."""
    if not _DNS_LABEL.fullmatch(name):
        yield at, f"{show(name)} is not a subset name: lower case letters, digits and '-' expected, at most 63"


def check_labels(labels: Mapping[str, str], at: Path) -> Iterator[Finding]:
    """Labels as Kubernetes has them."""
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            yield (*at, key), f"{show(key)} is not a label: letters, digits, '-', '_' and '.' expected, at most 63"
        if not _LABEL_VALUE.fullmatch(value):
            yield (*at, key), f"{show(value)} is not a label's value: letters, digits, '-', '_', '.', at most 63"


def check_count(entries: Sequence[object], most: int, at: Path) -> Iterator[Finding]:
    """No more entries than are allowed."""
    if len(entries) > most:
        yield at, f"has {len(entries)} entries; at most {most} are allowed"


def check_header_name(name: str, at: Path) -> Iterator[Finding]:
    """A token of RFC 9110."""
    if not TOKEN.fullmatch(name):
        yield at, f"{show(name)} is not a header name: letters, digits and !#$%&'*+-.^_`|~ expected"


def check_header_value(value: str, at: Path) -> Iterator[Finding]:
    """No control characters, so that a value can't end its header."""
    if _CONTROLS.search(value):
        yield at, f"{show(value)} has a line break or another control character, which no header may hold"
