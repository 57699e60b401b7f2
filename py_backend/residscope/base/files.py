"""Writes a file completely, or leaves it unchanged. A symbolic link is replaced, not followed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_write(path: Path) -> Generator[IO[bytes]]:
    """Open a new file, which replaces `path` when it is completely written. If writing fails, the new file is deleted.

    During writing, the new file has an unpredictable name in the folder of `path`, and the user's default permissions.
    If `path` is a symbolic link, the link is replaced, and the file that it points to stays unchanged.

    Raises:
        OSError: If the file cannot be written.
    """
    # Not made from the name of `path`, which may have all 255 bytes that a name can have.
    temporary = path.with_name(f".residscope-{secrets.token_hex(8)}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(temporary, flags, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
