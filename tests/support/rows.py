"""Reads the labels of the rows of a reply."""

from __future__ import annotations

from typing import Any

import msgspec

from residscope.terms import ComponentTable


def labels_of(reply: Any) -> list[str]:
    """Return the labels of a reply's rows. The reply may be encoded as a dictionary."""
    return named(reply["components"] if isinstance(reply, dict) else reply.components)


def named(table: Any) -> list[str]:
    """Return the labels of a component table. The table may be encoded as a dictionary."""
    return [row.label for row in msgspec.convert(table, ComponentTable).components()]
