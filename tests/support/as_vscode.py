"""Makes the expressions that the VS Code extension runs in a kernel, with the extension's own code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_SCRIPT = """
import { build } from "esbuild";
import { readFileSync } from "node:fs";
const { token, questions } = JSON.parse(readFileSync(0, "utf8"));
const common = { bundle: true, write: false, platform: "node", format: "esm" };
const file = "widgets/src/hosts/executed/expressions.ts";
const { outputFiles: [{ contents }] } = await build({ ...common, entryPoints: [file] });
const attach = readFileSync("py_backend/residscope/hosts/attach.py", "utf8");
const module = Buffer.from(contents).toString("base64");
const { requestExpression, attachAndDescribe } = await import(`data:text/javascript;base64,${module}`);
const written = questions ? requestExpression(token, questions) : attachAndDescribe(attach, token);
process.stdout.write(JSON.stringify(written));
"""


def expression(token: str, questions: list[Any] | None = None) -> str:
    """Return the expression that sends these questions to the kernel. Without questions, it only attaches."""
    node = ["node", "--input-type=module", "--eval", _SCRIPT]
    given = json.dumps({"token": token, "questions": questions})
    result = subprocess.run(node, cwd=_ROOT, input=given, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)
