"""The code of the tab "features"."""

from __future__ import annotations

from residscope.errors import ResidscopeError
from residscope.export.script import Script


def features(script: Script) -> list[str]:
    """Return the lines that compute the rows of the shown SAE."""
    shown, saes = script.request.shown, script.given.saes
    name = shown.sae if shown.sae is not None else next(iter(saes), None)
    if name is None or name not in saes:
        raise ResidscopeError("no-sae", "The SAE that is shown is not known any more: choose another one.")
    which = "attribution.mean()" if script.prompt is None else f"attribution.values[:, {script.prompt}]"
    return [
        script.attribute("feature", sae=script.sae(saes[name]), **script.position),
        f"values = {which}  # [component], {script.unit}, {script.mean_words}; names: attribution.labels",
        script.figure(),
    ]
