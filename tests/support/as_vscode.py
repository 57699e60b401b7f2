"""Makes the expressions that the VS Code extension runs in a kernel, with the extension's own code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

_EXTENSION = Path(__file__).parents[2] / "extension" / "vscode"
_SCRIPT = """
import { build } from "esbuild";
import { readFileSync } from "node:fs";
const { token, questions } = JSON.parse(readFileSync(0, "utf8"));
const common = { bundle: true, write: false, platform: "node", format: "esm", loader: { ".py": "text" } };
const { outputFiles: [{ contents }] } = await build({ ...common, entryPoints: ["src/expressions.ts"] });
const module = Buffer.from(contents).toString("base64");
const { requestExpression, attachAndDescribe } = await import(`data:text/javascript;base64,${module}`);
process.stdout.write(JSON.stringify(questions ? requestExpression(token, questions) : attachAndDescribe(token)));
"""


def expression(token: str, questions: list[Any] | None = None) -> str:
    """Return the expression that sends these questions to the kernel. Without questions, it only attaches."""
    node = ["node", "--input-type=module", "--eval", _SCRIPT]
    given = json.dumps({"token": token, "questions": questions})
    result = subprocess.run(node, cwd=_EXTENSION, input=given, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)
