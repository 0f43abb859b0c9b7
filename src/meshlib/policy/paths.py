"""The path of a request as it may be read.

An application isn't behind a proxy here that would hand it a tidied path: it gets what came. So a rule looks at the
path as the application sees it *and* as it is once tidied, by Istio's `NORMALIZE` and `MERGE_SLASHES`: `.` and `..`
followed (RFC 3986, 5.2.4), slashes merged, a backslash taken for a slash. What forbids does so by any reading, what
permits must fit them all. Both are decoded, so that there is one way to write a text; what nobody can decode in only
one way has no reading, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote, unquote_to_bytes

__all__ = ["PathReading", "decoded_pattern", "followed", "forbidding_paths", "guesses", "mounting_fault", "read_path"]

_PLAIN = re.compile(rb"(?:/(?!\.{1,2}(?:/|\Z))[\w.~!$&'()*+,:=@-]+)*/?")
"""A path with one reading: no escape, no empty or dot segment, no backslash, no parameters."""

_TARGET = re.compile(rb"(?:[A-Za-z][A-Za-z0-9+.-]*://[^/]*)?(/.*|)", re.DOTALL)
_DOTS = re.compile(rb"(?:\.|%2e){1,2}", re.IGNORECASE)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SLASH = re.compile(rb"%(?:2f|5c)", re.IGNORECASE)
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffd\ud800-\udfff]")
_NOT_SENT = re.compile(rb"[^\x21-\x22\x24-\x7e]")
_MOUNTING = (b"script-name", b"script_name")


class PathReading(NamedTuple):
    """What a path may mean.

    Attributes:
        fault: why it can't be told what it means, "" when it can.
        permitting: every reading, each of which must be permitted; none with a fault.
        forbidding: the same and each with the slash at its end taken away or put there, for some routers don't mind;
            all of them also without what the application is mounted under.
    """

    fault: str
    permitting: tuple[str, ...] = ()
    forbidding: tuple[str, ...] = ()


def read_path(raw_target: bytes, seen: str, exact: bool, mount: str = "") -> PathReading:
    """The readings of a path.

    Args:
        raw_target: path and query as they came.
        seen: the path as the application sees it, decoded.
        exact: whether `raw_target` came so over the wire, and wasn't rebuilt from `seen`.
        mount: what the application is mounted under. Its router takes that away where a path begins with it.
    """
    path = raw_target.partition(b"?")[0]
    if path and _PLAIN.fullmatch(path) is not None:
        text = path.decode("ascii")
        if text == seen:
            found = PathReading("", (text,), (text, _turned(text)))
            return found if not mount else found._replace(forbidding=_with_mounted(found.forbidding, mount))
    found = _read(path, seen, exact)
    return found if not mount else found._replace(forbidding=_with_mounted(found.forbidding, mount))


def guesses(seen: str, mount: str = "") -> tuple[str, ...]:
    """What somebody may make of a path that has no clear reading: for what only counts, and can't refuse it.

    Args:
        seen: see `read_path`.
        mount: see there.
    """
    text = _without_origin(seen)
    tidy = followed(_CONTROL.sub("", unquote(text)).strip())
    return _with_mounted(tuple(dict.fromkeys((seen, text, tidy, _turned(tidy)))), mount)


def mounting_fault(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Why headers (names in lower case) change what the path of a request is, "" when they don't."""
    for name, _ in headers:
        if len(name) == 11 and name in _MOUNTING:
            return "its header SCRIPT_NAME has gunicorn take the application for mounted elsewhere"
    return ""


def followed(path: str) -> str:
    """The path with slashes merged, backslashes taken for slashes, and `.` and `..` followed."""
    parts: list[str] = []
    segments = path.replace("\\", "/").split("/")
    for part in segments:
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    ended = segments[-1] in {"", ".", ".."}
    return "/" + "/".join(parts) + ("/" if ended and parts else "")


def decoded_pattern(pattern: str) -> str:
    """A path as a policy writes it, in the form that readings have: `/caf%C3%A9` is `/café`."""
    if "%" not in pattern:
        return pattern
    try:
        return unquote_to_bytes(pattern).decode("utf-8")
    except UnicodeDecodeError:
        return pattern  # nothing that has a reading fits it


def _read(path: bytes, seen: str, exact: bool) -> PathReading:
    if path == b"*":  # OPTIONS for the whole server
        return PathReading("", ("*",), ("*",)) if seen in {"*", "/*", ""} else _faulty("the server read another path")
    found = _TARGET.fullmatch(path)
    if found is None:
        return _faulty("its target is neither a path nor a URL")
    if fault := _fault(found[1]):
        return _faulty(fault)
    try:
        text = unquote_to_bytes(found[1]).decode("utf-8") or "/"
    except UnicodeDecodeError:
        return _faulty("its path isn't UTF-8")
    if _CONTROL.search(text) or _CONTROL.search(seen):
        return _faulty("its path has a control character, or isn't UTF-8")
    if _ESCAPE.search(text):
        return _faulty("its path is percent-encoded twice")
    tidy = followed(text)
    if exact and followed(_without_origin(seen)) != tidy:
        return _faulty("the server read another path than the one that came")
    readings = tuple(dict.fromkeys((tidy, text, seen or "/", _without_origin(seen), followed(_without_origin(seen)))))
    return PathReading("", readings, tuple(dict.fromkeys((*readings, *map(_turned, readings)))))


def _fault(path: bytes) -> str:
    """Why a path as it came can't be decoded in only one way, "" when it can."""
    if _NOT_SENT.search(path):
        return "its path has a character that must be percent-encoded, or a fragment"
    if b"%" in path:
        if _BAD_ESCAPE.search(path):
            return "its path has a '%' that begins no escape"
        if _SLASH.search(path):
            return "its path has an encoded slash or backslash"
    for segment in path.replace(b"\\", b"/").split(b"/"):
        bare, parameters, _ = segment.partition(b";")
        if _DOTS.fullmatch(bare) is not None and (parameters or b"%" in bare):
            return "its path has a dot segment in disguise"
    return ""


def _faulty(fault: str) -> PathReading:
    return PathReading(fault)


def _without_origin(seen: str) -> str:
    """The path of what an application sees: some servers give it all of a target in absolute form."""
    if seen.startswith("/") or "://" not in seen:
        return seen or "/"
    _, slash, rest = seen.partition("://")[2].partition("/")
    return slash + rest or "/"


def forbidding_paths(paths: Iterable[str], mount: str) -> tuple[str, ...]:
    """Readings of a path, each also with the slash at its end turned and without the mount; see `PathReading`."""
    every = tuple(paths)
    return _with_mounted(tuple(dict.fromkeys((*every, *map(_turned, every)))), mount)


def _with_mounted(paths: tuple[str, ...], mount: str) -> tuple[str, ...]:
    mount = mount.rstrip("/")
    if not mount:
        return paths
    below = (path[len(mount) :] or "/" for path in paths if path == mount or path.startswith(mount + "/"))
    return tuple(dict.fromkeys((*paths, *below)))


def _turned(path: str) -> str:
    if path.endswith("/"):
        return path[:-1] or "/"
    return path + "/"
