"""Values of a request's headers, as rules look at them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshlib.policy.arriving import Arriving
from meshlib.policy.patterns import any_part

__all__ = ["any_header"]


def any_header(name: str, values: Sequence[str], forbidding: bool) -> Callable[[Arriving], bool]:
    """Whether a header is one of `values`; `*` is one that is there, even empty.

    A header that came several times is read joined by commas, as Istio does, and each by itself. One whose name differs
    in `_` for `-` is the same to what reads headers as CGI does, and is read with it.

    Args:
        name: of the header, in any case.
        values: as of every text; a star at both ends is for a part.
        forbidding: whether any reading is enough, also a part between commas. Otherwise the header itself must be
            there, and every reading must fit.
    """
    wanted = name.lower().encode("latin-1", "replace")
    folded = wanted.replace(b"_", b"-")
    length = len(wanted)
    test = any_part(values)
    anything = "*" in values
    glue = "; " if wanted == b"cookie" else ","  # as HTTP/2 splits it (RFC 9113, 8.2.3)

    def holds(arriving: Arriving) -> bool:
        every: list[str] = []
        own: list[str] = []
        for key, value in arriving.raw_headers:
            if len(key) == length and key.replace(b"_", b"-") == folded:
                every.append(value.decode("utf-8", "replace").strip(" \t"))
                if key == wanted:
                    own.append(every[-1])
        if forbidding:
            return bool(every) and (anything or any(map(test, _parts(every))))
        if not own or anything:
            return bool(own)
        if len(every) == 1:
            return test(own[0])
        if glue != ",":
            return test(glue.join(every))
        return test(",".join(own)) and test(",".join(every)) and all(map(test, every))

    return holds


def _parts(lines: Sequence[str]) -> Sequence[str]:
    """Every text that somebody may take for the header's value."""
    if len(lines) == 1 and "," not in lines[0]:
        return lines
    between = [part.strip(" \t") for line in lines for part in line.split(",")]
    return [",".join(lines), *lines, *between]
