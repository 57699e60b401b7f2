"""Measures the import, the sizes of wheel and bundle, and times and sizes of replies on the demo model.

python -m tests.benchmarks.sizes
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.table import Row, markdown, side_by_side, spoken

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "py_backend/residscope/static"


def main() -> None:
    """Print the table."""
    print(markdown(rows()))


def rows() -> list[Row]:
    """Return rows on import, wheel, bundle and replies."""
    return [_import(), _wheel(), _bundle(), *_replies()]


def _import() -> Row:
    def start(code: str) -> object:
        return subprocess.run([sys.executable, "-c", code], check=True)

    ours, bare = side_by_side(7, lambda: start("import residscope"), lambda: start("pass"))
    name = "`import residscope` in a fresh interpreter"
    beside = "an interpreter that imports nothing"
    taken = ours - bare
    return Row(name, beside, spoken(ours), spoken(bare), f"{taken:.3f} s more", "≤ 0.15 s", taken <= 0.15)


def _wheel() -> Row:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "-w",
            folder,
            ".",
        ]
        subprocess.run(command, check=True, cwd=ROOT)
        size = next(Path(folder).glob("*.whl")).stat().st_size
    return Row("wheel, with the JupyterLab extension", "", "", "", f"{size / 1e3:.0f} kB", "≤ 1.3 MB", size <= 1.3e6)


def _bundle() -> Row:
    data = {path.name: path.read_bytes() for path in sorted(STATIC.glob("panel.*"))}
    size = sum(len(gzip.compress(held)) for held in data.values())
    note = ", ".join(f"{name} {len(held) / 1e3:.0f} kB" for name, held in data.items())
    return Row("bundle of the panel, gzipped", "", "", "", f"{size / 1e3:.1f} kB", "≤ 120 kB", size <= 120e3, note)


def _replies() -> list[Row]:
    import msgspec

    from residscope import demo
    from residscope.serving.service import Service

    run = demo.ioi()
    service = Service(run.cache)
    target = msgspec.to_builtins(service.targets().resolve(run.answers))
    asks: dict[str, dict[str, Any]] = {
        "describe": {"kind": "describe"},
        "tokens": {"kind": "tokens"},
        "attribute, accumulated": {"kind": "attribute", "by": "accumulated", "target": target},
        "attribute, layer": {"kind": "attribute", "by": "layer", "target": target},
        "attribute, head": {"kind": "attribute", "by": "head", "target": target},
        "attention": {"kind": "attention", "layer": 23, "head": 3, "target": target},
        "suggest": {"kind": "suggest"},
    }
    found: list[Row] = []
    for name, ask in asks.items():
        content, buffers = service.answer({"id": "1", "ask": ask})
        (spent,) = side_by_side(9, lambda ask=ask: service.answer({"id": "1", "ask": ask}))
        size = f"{len(msgspec.json.encode(content))} B + {sum(map(len, buffers))} B binary"
        found.append(Row(f"reply, demo model: {name}", "", spoken(spent), "", size, "", None))
    return found


if __name__ == "__main__":
    main()
