"""Which modules are mutated, and which tests decide whether a mistake in one is noticed."""

from __future__ import annotations

ATTRIBUTION = ["precision", "output", "attribution", "partial", "edges", "families"]
MANY = ["many"]
EXPORT = ["code", "plotly", "circuitsvis", "csv", "figures", "names_in_code", "legible"]

MODULES: dict[str, list[str]] = {
    "cache/positions": ["edges", "attribution", "partial", "padding"],
    "cache/padding": ["padding", "tokenizers"],
    "cache/padding_mask": ["padding", "tokenizers"],
    "cache/padding_tokens": ["padding", "tokenizers"],
    "cache/padding_notes": ["padding", "tokenizers"],
    "attribution/targets": ["targets", "answers", "attribution", "tokenizers"],
    "attribution/readout": ATTRIBUTION,
    "attribution/components": ATTRIBUTION,
    "attribution/reconcile": [*ATTRIBUTION, "held_against_the_run", "applied"],
    "patterns/weighting": ["edges", "attention", "families", "applied"],
    "attribution/sources": ["edges", "precision", "attention", "attribution", "families", "applied"],
    "attribution/head_inputs": [*ATTRIBUTION, "attention", "applied", "held_against_the_run"],
    "patterns/scores": ["edges", "scores", "families"],
    "attribution/token_lens": ["output", "edges", "token_lens", "families", "attribution"],
    "attribution/position_map": ["edges", "long", "attribution", "panel"],
    "patterns/downsampling": ["edges", "figures", "long", "attention", "panel"],
    "session/change_tracking": ["change_tracking", "changed_weights", "dependence", "memo"],
    "session/weights_state": ["change_tracking", "changed_weights", "dependence", "memo"],
    "session/tensor_snapshot": ["change_tracking", "changed_weights", "dependence", "memo"],
    "session/model_settings": ["change_tracking", "changed_weights", "dependence", "memo"],
    "compute/memo": ["memo", "change_tracking", "dependence"],
    "compute/samples": ["changed_weights", "change_tracking"],
    "serving/service": ["edges", "kept", "panel", "questions", "changed_weights", "long", "dispatcher"],
    "session/discovery": ["discovery", "misleading"],
    "session/class_kinds": ["discovery", "misleading"],
    "session/containers": ["discovery", "misleading"],
    "session/safe_access": ["discovery", "names_in_code"],
    "many/checkpoint": [*MANY, "kept"],
    "many/items": MANY,
    "many/saved_file": [*MANY, "kept"],
    "many/processes": MANY,
    "many/fingerprint": MANY,
    "many/result": MANY,
    "many/run": MANY,
    "many/accumulator": MANY,
    "export/view_requests": ["view_requests", *EXPORT, "panel"],
    "export/bars": EXPORT,
    "export/circuitsvis_views": EXPORT,
    "export/code": EXPORT,
    "export/figures": EXPORT,
    "export/palette": EXPORT,
    "export/maps": EXPORT,
    "export/page": [*EXPORT, "packages"],
    "export/script": EXPORT,
    "export/figure_data": [*EXPORT, "panel"],
    "export/snapshot": ["view_requests", *EXPORT, "panel"],
    "export/python_source": EXPORT,
}
"""Paths below `py_backend/residscope`, and names of files below `tests/python` without `test_` and `.py`."""
