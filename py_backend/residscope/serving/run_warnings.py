"""Warnings: short names of the notes that concern every number of a run."""

from __future__ import annotations

from collections.abc import Sequence

from residscope.cache.padding_notes import ATTENDED_TO_PADDING
from residscope.cache.structure_notes import TRAINING
from residscope.session.change_notes import OTHER_MODEL, WEIGHTS_CHANGED
from residscope.wire.decompositions import WarningKind

_WARNINGS: dict[str, WarningKind] = {
    ATTENDED_TO_PADDING: "attended-to-padding",
    WEIGHTS_CHANGED: "weights-changed",
    OTHER_MODEL: "weights-changed",
    TRAINING: "training-mode",
}
"""The notes that are warnings."""


def warnings_in(notes: Sequence[str]) -> list[WarningKind]:
    """Return which warnings are among the notes."""
    return list(dict.fromkeys(_WARNINGS[note] for note in notes if note in _WARNINGS))
