"""Which modules are mutated, and which tests decide whether a mistake in one is noticed."""

from __future__ import annotations

ATTRIBUTION = ["precision", "attribution", "partial", "families"]
MANY = ["many"]
EXPORT = ["export", "names_in_code", "legible"]

MODULES: dict[str, list[str]] = {
    "positions": ["attribution", "partial", "padding"],
    "padding": ["padding", "tokenizers"],
    "targets": ["targets", "answers", "attribution", "tokenizers"],
    "readout": ATTRIBUTION,
    "components": ATTRIBUTION,
    "fit": [*ATTRIBUTION, "held_against_the_run", "applied"],
    "weightings": ["attention", "families", "applied"],
    "sources": ["attention", "attribution", "families", "applied"],
    "reads": ["attention", "applied", "families", "held_against_the_run"],
    "head_scores": ["scores", "families"],
    "lens": ["token_lens", "families", "attribution"],
    "position_map": ["long", "attribution", "panel"],
    "downsampling": ["long", "attention", "panel"],
    "identity": ["identity", "changed_weights", "dependence", "memo"],
    "memo": ["memo", "identity", "dependence"],
    "samples": ["changed_weights", "identity"],
    "service": ["kept", "panel", "questions", "changed_weights", "long"],
    "namespace": ["namespace", "misleading"],
    "many/file": MANY,
    "many/items": MANY,
    "many/kept": MANY,
    "many/processes": MANY,
    "many/question": MANY,
    "many/result": MANY,
    "many/run": MANY,
    "many/tally": MANY,
    "export/asks": [*EXPORT, "panel"],
    "export/bars": EXPORT,
    "export/circuitsvis_views": EXPORT,
    "export/code": EXPORT,
    "export/figures": EXPORT,
    "export/look": EXPORT,
    "export/maps": EXPORT,
    "export/page": [*EXPORT, "packages"],
    "export/script": EXPORT,
    "export/shown": [*EXPORT, "panel"],
    "export/snapshot": [*EXPORT, "panel"],
    "export/writing": EXPORT,
}
"""Paths below `py_backend/residscope`, and names of files below `tests/python` without `test_` and `.py`."""
