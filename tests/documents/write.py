"""`npm run docs`: writes the documents whose numbers come from the running program, or only those that are named."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.documents import (
    architectures,
    causes,
    next_token,
    padding,
    points,
    precision,
    sae_features,
    tutorial,
    why,
)

FOLDER = Path(__file__).resolve().parents[2] / "py_backend/docs"

DOCUMENTS = {
    "tutorial": tutorial,
    "why": why,
    "next-token": next_token,
    "padding": padding,
    "precision": precision,
    "architectures": architectures,
    "points": points,
    "causes": causes,
    "sae-features": sae_features,
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    chosen = sys.argv[1:] or list(DOCUMENTS)
    if unknown := set(chosen) - set(DOCUMENTS):
        sys.exit(f"There is no document {', '.join(sorted(unknown))}; the documents are: {', '.join(DOCUMENTS)}.")
    for name in chosen:
        DOCUMENTS[name].main(FOLDER / f"{name}.md")
