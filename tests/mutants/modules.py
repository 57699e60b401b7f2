"""Which modules are mutated, and which tests decide whether a mistake in one is noticed."""

from __future__ import annotations

ATTRIBUTION = ["precision", "output", "attribution", "partial", "edges", "families"]
MANY = ["many"]
EXPORT = ["export", "figures", "names_in_code", "legible"]

MODULES: dict[str, list[str]] = {
    "positions": ["edges", "attribution", "partial", "padding"],
    "padding": ["padding", "tokenizers"],
    "targets": ["targets", "answers", "attribution", "tokenizers"],
    "readout": ATTRIBUTION,
    "components": ATTRIBUTION,
    "fit": [*ATTRIBUTION, "held_against_the_run", "applied"],
    "weightings": ["edges", "attention", "families", "applied"],
    "sources": ["edges", "precision", "attention", "attribution", "families", "applied"],
    "reads": ["edges", "output", "attention", "applied", "families", "held_against_the_run"],
    "head_scores": ["edges", "scores", "families"],
    "lens": ["output", "edges", "token_lens", "families", "attribution"],
    "position_map": ["edges", "long", "attribution", "panel"],
    "downsampling": ["edges", "figures", "long", "attention", "panel"],
    "identity": ["identity", "changed_weights", "dependence", "memo"],
    "memo": ["memo", "identity", "dependence"],
    "samples": ["changed_weights", "identity"],
    "service": ["edges", "kept", "panel", "questions", "changed_weights", "long"],
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
