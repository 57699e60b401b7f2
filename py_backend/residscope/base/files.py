"""Writes files completely or not at all, and never through a symbolic link."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def in_place_of(path: Path) -> Generator[IO[bytes]]:
    """A new file that replaces `path` after it is completely written; it is removed if that fails.

    Until then it has an unpredictable name in the same folder, and the user's default permissions. If `path` is a link,
    the link is replaced, and its target stays unchanged.

    Raises:
        OSError: If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        number = os.open(temporary, flags, 0o666)
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            os.fsync(number)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
