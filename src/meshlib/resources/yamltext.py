"""YAML texts as plain values, with the line of every value.

The composer works on parser events instead of a loader's objects, so that a hostile text is refused before it costs
anything: nesting, size after alias expansion, and aliases inside their own anchor are judged event by event.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from meshlib.resources import scalars
from meshlib.resources.documents import Path

__all__ = ["MAX_DEPTH", "MAX_NODES", "Document", "Marks", "TextError", "compose", "line_of"]

MAX_DEPTH = 64
MAX_NODES = 500_000

Marks = dict[int, dict[str, int] | list[int]]
"""By the id of a mapping or a list: the line of each of its values."""

_MAP_TAGS = (None, "!", "tag:yaml.org,2002:map")
_SEQ_TAGS = (None, "!", "tag:yaml.org,2002:seq")
_MERGE = "<<"


class Document(NamedTuple):
    """One document of a text: its value, the line it begins at, and the lines of what it holds."""

    value: Any
    line: int
    marks: Marks


class TextError(Exception):
    """A text that can't be read any further.

    Attributes:
        line: from 1; 0 when the parser doesn't say.
        message: what is wrong and the way out.
    """

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class _Anchor(NamedTuple):
    value: Any
    nodes: int
    height: int


class _Frame:
    """A mapping or a list that is being read."""

    __slots__ = ("anchor", "before", "height", "key", "line", "lines", "merges", "value")

    def __init__(self, value: dict[str, Any] | list[Any], anchor: str | None, line: int, before: int) -> None:
        self.value = value
        self.lines: dict[str, int] | list[int] = {} if isinstance(value, dict) else []
        self.anchor = anchor
        self.line = line
        self.before = before
        self.height = 1
        self.key: str | None = None
        self.merges: list[tuple[dict[str, Any], int]] = []


def compose(text: str) -> Iterator[Document]:
    """The documents of a YAML text, in order.

    Raises:
        TextError: at the first place that can't be read; documents before it have been given out.
    """
    import yaml  # a program that never reads YAML should not pay for it

    composer = _Composer()
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            composer.take(type(event).__name__, event)
            if composer.done is not None:
                yield composer.done
                composer.done = None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = mark.line + 1 if mark is not None else 0
        raise TextError(where, f"is not YAML: {error.problem or error.context or 'unreadable'}") from error
    except yaml.YAMLError as error:
        raise TextError(0, f"is not YAML: {str(error).splitlines()[0]}") from error


def line_of(document: Document, path: Path) -> int:
    """The line of the value at `path`, or of the nearest value around it that is there."""
    value, line = document.value, document.line
    for step in path:
        lines: Any = document.marks.get(id(value))
        try:
            value, line = value[step], lines[step]
        except (KeyError, IndexError, TypeError):
            break
    return line


class _Composer:
    """Builds one document after the other from the events of a text."""

    def __init__(self) -> None:
        self.done: Document | None = None
        self._nodes = 0
        self._begin(1)

    def _begin(self, line: int) -> None:
        self._frames: list[_Frame] = []
        self._anchors: dict[str, _Anchor | None] = {}
        self._marks: Marks = {}
        self._root: Any = None
        self._line = line

    def take(self, kind: str, event: Any) -> None:
        line = event.start_mark.line + 1
        match kind:
            case "ScalarEvent":
                self._scalar(event, line)
            case "MappingStartEvent":
                self._open({}, event, _MAP_TAGS, line)
            case "SequenceStartEvent":
                self._open([], event, _SEQ_TAGS, line)
            case "MappingEndEvent" | "SequenceEndEvent":
                self._close()
            case "AliasEvent":
                self._alias(event.anchor, line)
            case "DocumentStartEvent":
                self._begin(line)
            case "DocumentEndEvent":
                self.done = Document(self._root, self._line, self._marks)

    def _scalar(self, event: Any, line: int) -> None:
        self._count(1, line)
        frame = self._frames[-1] if self._frames else None
        expects_key = frame is not None and isinstance(frame.value, dict) and frame.key is None
        text: str = event.value
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise TextError(line, "has half of a surrogate pair, which is no character")
        if expects_key and event.tag is None:
            value: Any = text  # a key is text as it stands: `on`, `80` and `v1.10` mean what they look like
        else:
            try:
                value = scalars.plain(text) if event.tag is None and event.implicit[0] else self._typed(text, event.tag)
            except ValueError as error:
                raise TextError(line, str(error)) from error
        if event.anchor:
            self._anchors[event.anchor] = _Anchor(value, 1, 0)
        quoted = event.style is not None and event.style != ""
        self._place(value, line, 0, merge=expects_key and not quoted and text == _MERGE)

    @staticmethod
    def _typed(text: str, tag: str | None) -> Any:
        return text if tag is None else scalars.tagged(text, tag)

    def _open(self, value: Any, event: Any, tags: tuple[str | None, ...], line: int) -> None:
        self._count(1, line)
        if event.tag not in tags:
            raise TextError(line, f"the tag {event.tag[:80]} is not supported; leave it out")
        if len(self._frames) >= MAX_DEPTH:
            raise TextError(line, f"is nested deeper than {MAX_DEPTH} levels")
        if self._frames and isinstance(self._frames[-1].value, dict) and self._frames[-1].key is None:
            raise TextError(line, "has a mapping or a list as a key; a key is a plain text")
        if event.anchor:
            self._anchors[event.anchor] = None
        self._frames.append(_Frame(value, event.anchor, line, self._nodes - 1))

    def _close(self) -> None:
        frame = self._frames.pop()
        for merged, line in frame.merges:
            self._merge(frame, merged, line)
        self._marks[id(frame.value)] = frame.lines
        if frame.anchor:
            self._anchors[frame.anchor] = _Anchor(frame.value, self._nodes - frame.before, frame.height)
        self._place(frame.value, frame.line, frame.height, merge=False)

    def _alias(self, name: str, line: int) -> None:
        if name not in self._anchors:
            raise TextError(line, f"the alias *{name[:80]} has no anchor &{name[:80]} before it")
        anchor = self._anchors[name]
        if anchor is None:
            raise TextError(line, f"cyclic reference: the alias *{name[:80]} stands inside its own anchor")
        if len(self._frames) + anchor.height > MAX_DEPTH:
            raise TextError(line, f"is nested deeper than {MAX_DEPTH} levels once the alias *{name[:80]} is expanded")
        self._count(anchor.nodes, line)
        self._place(anchor.value, line, anchor.height, merge=False)

    def _place(self, value: Any, line: int, height: int, *, merge: bool) -> None:
        if not self._frames:
            self._root = value
            return
        frame = self._frames[-1]
        frame.height = max(frame.height, height + 1)
        if isinstance(frame.value, list):
            frame.value.append(value)
            frame.lines.append(line)  # type: ignore[union-attr]  # made together with the list in _Frame
        elif frame.key is None:
            frame.key = self._key(frame, value, line, merge=merge)
        else:
            self._pair(frame, frame.key, value, line)
            frame.key = None

    def _key(self, frame: _Frame, value: Any, line: int, *, merge: bool) -> str:
        if merge:
            return _MERGE
        if not isinstance(value, str):
            raise TextError(line, "has a key that is no text; quote it")
        if value == _MERGE:
            raise TextError(line, 'has the quoted key "<<"; no field is called that')
        if value in frame.value:
            raise TextError(line, f"the key {value[:80]!r} stands twice in one mapping; remove one of them")
        return value

    def _pair(self, frame: _Frame, key: str, value: Any, line: int) -> None:
        if key != _MERGE:
            frame.value[key] = value  # type: ignore[call-overload]  # a frame with a key holds a mapping
            frame.lines[key] = line  # type: ignore[call-overload]
            return
        for merged in value if isinstance(value, list) else [value]:
            if not isinstance(merged, dict):
                raise TextError(line, "the merge key << takes a mapping or a list of mappings")
            frame.merges.append((merged, line))

    def _merge(self, frame: _Frame, merged: dict[str, Any], line: int) -> None:
        """Adds what the mapping doesn't say itself; of several merged mappings the first to say it wins."""
        self._count(len(merged), line)
        for key, value in merged.items():
            if key not in frame.value:
                self._pair(frame, key, value, line)

    def _count(self, nodes: int, line: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise TextError(line, f"has more than {MAX_NODES} values once its aliases are expanded; split the file")
