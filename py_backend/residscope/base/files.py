"""Files that are written: whole or not at all, and never through a link that somebody has put in the way."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def in_place_of(path: Path) -> Generator[IO[bytes]]:
    """A new file, which takes the place of `path` when all of it is written; where that fails it is removed.

    It stands beside `path` under a name that nobody can know before, and may be read by whom the user lets read new
    files. Where `path` is a link, the link is replaced, and what it leads to is left alone.

    Raises:
        OSError: If it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        number = os.open(beside, flags, 0o666)
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            os.fsync(number)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
