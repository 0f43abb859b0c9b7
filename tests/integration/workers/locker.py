"""A process that keeps an SQLite file to itself until its input ends."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing


def main(path: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        print("locked", flush=True)
        sys.stdin.read()
        connection.execute("ROLLBACK")


if __name__ == "__main__":
    main(sys.argv[1])
