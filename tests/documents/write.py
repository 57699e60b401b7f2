"""`npm run docs`: writes the documents whose numbers come from the running program."""

from __future__ import annotations

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

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    tutorial.main(FOLDER / "tutorial.md")
    why.main(FOLDER / "why.md")
    next_token.main(FOLDER / "next-token.md")
    padding.main(FOLDER / "padding.md")
    precision.main(FOLDER / "precision.md")
    architectures.main(FOLDER / "architectures.md")
    points.main(FOLDER / "points.md")
    causes.main(FOLDER / "causes.md")
    sae_features.main(FOLDER / "sae-features.md")
