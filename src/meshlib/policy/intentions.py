"""Whether a request may come in, by Consul's intentions.

Where a path, a header or an expression can be read in two ways, it is read against the caller: what is denied by any
reading is denied, and what is allowed must be so by every reading. So `//admin`, `/x/../admin` and `/%61dmin` are all
caught by a rule that denies `/admin`, whatever the application makes of them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from meshlib.policy.match import MAX_MATCHED
from meshlib.policy.paths import followed, forbidding_paths
from meshlib.resources import HeaderPermission, Intention, Intentions, Permission
from meshlib.resources.regex import regex_fault

__all__ = ["Decision", "RequestView", "decide", "source_of"]

MOST_VALUES = 200
"""Of one header; servers take a hundred headers or so. Who sends more fits what denies, and nothing that allows."""

Caller = tuple[str, str]
_CONSUL_PATH = re.compile(r"/ns/([^/]+)/dc/[^/]+/svc/([^/]+)")


class Decision(NamedTuple):
    """Whether the request may come in, and by what, in words for a log."""

    allowed: bool
    reason: str


class RequestView(NamedTuple):
    """What L7 permissions look at.

    Attributes:
        method: in any case.
        path: as the application sees it, without the query.
        header: gives the value of a header by its name in lower case, several joined by commas; None: it isn't there.
        mount: what the application says it is mounted under, which its router takes away; "" for nothing.
    """

    method: str
    path: str
    header: Callable[[str], str | None]
    mount: str = ""


def source_of(path: str) -> Caller | None:
    """(namespace, service) of a SPIFFE ID's path as Consul writes it, `/ns/default/dc/dc1/svc/web`; None of any other.

    The trust domain isn't looked at: the handshake lets only ours in.
    """
    found = _CONSUL_PATH.fullmatch(path)
    return (found[1], found[2]) if found is not None else None


def decide(intentions: Intentions, source: Caller | None, request: RequestView) -> Decision:
    """The first rule that fits the caller decides, else the default.

    Args:
        intentions: of the service that is called.
        source: (namespace, service) of the verified caller; None has no identity, and only rules for `*` fit it.
        request: for rules with L7 permissions, of which the first that fits decides, and none means denied.
    """
    who = f"{source[0]}/{source[1]}" if source is not None else "a caller without an identity"
    for rule in intentions.rules:
        if not _fits(rule, source):
            continue
        whose = f"the intention for {rule.source_namespace}/{rule.source}"
        if rule.action is not None:
            return Decision(rule.action == "allow", f"{whose} says {rule.action} to {who}")
        for number, permission in enumerate(rule.permissions, 1):
            if _holds(permission, request):
                says = f"{whose}, permission {number}, says {permission.action} to {who}"
                return Decision(permission.action == "allow", says)
        return Decision(False, f"{whose} has no permission that fits what {who} asks for")
    says = "allow" if intentions.default_allow else "deny"
    return Decision(intentions.default_allow, f"no intention fits {who}, and the default is {says}")


def _fits(rule: Intention, source: Caller | None) -> bool:
    if source is None:
        return rule.source == "*"
    return rule.source in ("*", source[1]) and rule.source_namespace in ("*", source[0])


def _holds(permission: Permission, request: RequestView) -> bool:
    if permission.methods and request.method.upper() not in permission.methods:
        return False
    denies = permission.action == "deny"
    every = any if denies else all
    paths: Iterable[str] = _readings(request.path)
    if denies:
        paths = forbidding_paths(paths, request.mount)
    if not every(_path_holds(permission, path, denies) for path in paths):
        return False
    for one in permission.headers:
        values = _values(request.header(one.name.lower()))
        held = every(_header_holds(one, value, denies) for value in values) if len(values) <= MOST_VALUES else denies
        if not held:
            return False
    return True


def _path_holds(permission: Permission, path: str, denies: bool) -> bool:
    if permission.path_exact is not None and path != permission.path_exact:
        return False
    if permission.path_prefix is not None and not path.startswith(permission.path_prefix):
        return False
    return permission.path_regex is None or _matches(permission.path_regex, path, denies)


def _header_holds(wanted: HeaderPermission, value: str | None, denies: bool) -> bool:
    texts = (wanted.exact, wanted.prefix, wanted.suffix)
    if value is None:
        # "Not this value" holds of a header that isn't there when it denies; Envoy lets such a request pass.
        bare = texts == (None, None, None) and wanted.regex is None
        return wanted.invert and (denies or bare)
    if wanted.regex is not None:
        # Turned round, what can't be judged must come out the other way, too.
        return _matches(wanted.regex, value, denies != wanted.invert) != wanted.invert
    fold = str.lower if wanted.ignore_case else str
    value = fold(value)
    exact, prefix, suffix = (None if text is None else fold(text) for text in texts)
    held = (
        (exact is None or value == exact)
        and (prefix is None or value.startswith(prefix))
        and (suffix is None or value.endswith(suffix))
    )
    return held != wanted.invert


def _matches(expression: str, text: str, unsure: bool) -> bool:
    """Whether the whole text matches; `unsure` for an expression or a text that can't be judged in bounded time."""
    pattern = _compiled(expression)
    return unsure if pattern is None or len(text) > MAX_MATCHED else pattern.fullmatch(text) is not None


@functools.lru_cache(maxsize=1024)
def _compiled(expression: str) -> re.Pattern[str] | None:
    return re.compile(expression) if regex_fault(expression) is None else None


def _values(header: str | None) -> Sequence[str | None]:
    """A header as it is and, where it came several times, each of its values: applications take the first or the last.

    Values that came by themselves are joined by a comma alone; the comma within a value has mostly a space behind it.
    """
    if header is None or "," not in header:
        return (header,)
    return (header, *re.split(",(?! )", header))


def _readings(path: str) -> Iterator[str]:
    """The path as it is, and what somebody may make of it: decoded, with slashes merged and dots followed."""
    yield path
    if not path.startswith(
        "/"
    ):  # of a target in absolute form, some servers give all, and some "" where it has no path
        path = "/" + (path.partition("://")[2].partition("/")[2] if "://" in path else path)
        yield path
    for read in (path, unquote(path)) if "%" in path else (path,):
        if "//" in read or "/." in read or "\\" in read or read is not path:
            tidy = followed(read)
            yield tidy if read.endswith("/") else tidy.rstrip("/") or "/"
