"""The rows of a reply, by their names."""

from __future__ import annotations

from typing import Any

import msgspec

from residscope.terms import ComponentTable


def labels_of(reply: Any) -> list[str]:
    """Of a reply, or of one as it travels."""
    return named(reply["components"] if isinstance(reply, dict) else reply.components)


def named(table: Any) -> list[str]:
    """Of a table, or of one as it travels."""
    return [row.label for row in msgspec.convert(table, ComponentTable).components()]
