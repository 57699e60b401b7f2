"""Residscope sends no requests, opens no port, starts no program, and writes only the file that the user saves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

QUIET = """
import sys
from tests.support import tiny
import torch
model = tiny.boot("llama")
tokens, logits, cache = tiny.run(model)
model.tokenizer.encode("w5")

seen = []
watched = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "subprocess.", "os.system", "os.exec", "os.fork")
def hook(event, args):
    if event.startswith(watched) and event not in ("socket.__new__", "socket.gethostname"):
        seen.append((event, str(args)[:200]))
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        seen.append((event, str(args)[:200]))
sys.dont_write_bytecode = True
sys.addaudithook(hook)

import residscope
from residscope.hosts.attach import SafeImports
from residscope.serving.dispatcher import Dispatcher
from residscope.wire.shown import Shown, WriteCode
from residscope.serving.service import Service

pair = ("w5", "w9")
for by in ("accumulated", "layer", "head", "neuron"):
    residscope.attribute(cache, pair, by=by).mean()
residscope.attention(cache, ["0.1"], weighting="contribution", answers=pair)
residscope.scores(cache, "induction")
residscope.token_lens(cache, pair, prompt=0)
residscope.caches()
panel = residscope.inspect(cache, pair, heads=["1.1"], show=False)
panel.to_html()
service = Service(cache)
service.reply(WriteCode("heads", Shown(service.targets().resolve(pair))))
Dispatcher(SafeImports).answer({"id": "1", "ask": {"kind": "caches"}})
assert not seen, seen
panel.save(sys.argv[1])
assert [event for event, _ in seen] == ["open"], seen
"""


def test_nothing_is_fetched_or_opened_and_only_the_saved_page_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    command = [sys.executable, "-c", QUIET, str(page)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Exception ignored" not in done.stderr  # at its end, Python clears modules while the model still exists
    assert [path.name for path in tmp_path.iterdir()] == [page.name]
