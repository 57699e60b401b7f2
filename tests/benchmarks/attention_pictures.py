"""Attention pictures: the time from the call to the painted picture, in headless Chromium, compared with CircuitsVis.

Residscope's views run as in a notebook. A service in this process is their kernel, and messages and buffers are sent
over HTTP. CircuitsVis' HTML is put into an empty page, as a notebook puts it into an output. The program prints a
table, and never asserts a time.

python -m tests.benchmarks.attention_pictures
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import torch
from playwright.sync_api import Browser, Error, sync_playwright

from tests.benchmarks.table import Row, markdown, spoken

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "py_backend/residscope/static"

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
PATIENCE = int(os.environ.get("RESIDSCOPE_PATIENCE", "120")) * 1000
"""After this many milliseconds (half as many for a long prompt), CircuitsVis counts as having drawn nothing."""

PAGE = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/panel.css">
<div id="root" style="width: 1200px"></div><div id="other"></div>
<script type="module">
import entry from "/panel.js";
const listeners = new Map();
const emit = (name, ...all) => [...(listeners.get(name) ?? [])].forEach(listener => listener(...all));
const traits = TRAITS;
window.model = {
    get: name => traits[name],
    set: (name, value) => { traits[name] = value; emit(`change:${name}`); },
    save_changes: () => {},
    on: (name, listener) => listeners.set(name, (listeners.get(name) ?? new Set()).add(listener)),
    off: (name, listener) => listeners.get(name)?.delete(listener),
    send: async question => {
        const answer = await (await fetch("/ask", { method: "POST", body: JSON.stringify(question) })).arrayBuffer();
        const view = new DataView(answer);
        let at = 4 + view.getUint32(0);
        const { content, sizes } = JSON.parse(new TextDecoder().decode(new Uint8Array(answer, 4, at - 4)));
        emit("msg:custom", content, sizes.map(size => new DataView(answer, (at += size) - size, size)));
    },
};
window.now = () => performance.timeOrigin + performance.now();
window.frame = () => new Promise(done => requestAnimationFrame(done));
window.painted = async ready => {
    while (!ready()) await frame();
    await frame();
    await frame();  // now the previous frame is on screen
    return now();
};
window.drawnCards = count => () => {
    const all = [...document.querySelectorAll(".rs-cards .rs-card:not(.rs-placeholder)")];
    return all.length === count && all.every(card => !card.classList.contains("rs-waiting"));
};
window.drawnThumbs = () => {
    const box = document.querySelector(".rs-thumbnails").getBoundingClientRect();
    const inSight = [...document.querySelectorAll(".rs-thumb")].filter(thumb => {
        const { top, bottom } = thumb.getBoundingClientRect();
        return bottom > box.top && top < box.bottom;
    });
    return inSight.length > 0 && inSight.every(thumb => thumb.querySelector("canvas").width > 1);
};
entry.render({ model, el: document.getElementById("root"), signal: new AbortController().signal });
</script>"""

# Moves the pointer over a matrix, one step per frame, like a hand. Returns the intervals between frames.
HOVER = """async count => {
    const canvas = document.querySelector(".rs-cards .rs-matrix");
    canvas.scrollIntoView({ block: "center" });
    const box = canvas.getBoundingClientRect();
    const times = [];
    let last = await frame();
    for (let i = 0; i < count; i++) {
        const x = box.left + box.width * (0.05 + 0.9 * ((i * 0.013) % 1));
        const y = box.top + box.height * (0.05 + 0.9 * (i / count));
        canvas.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: x, clientY: y }));
        const at = await frame();
        times.push(at - last);
        last = at;
    }
    return times;
}"""
# Returns the intervals between frames without any work: the limit of this machine.
IDLE = """async count => {
    const times = [];
    let last = await frame();
    for (let i = 0; i < count; i++) {
        const at = await frame();
        times.push(at - last);
        last = at;
    }
    return times;
}"""
# Puts HTML into an output as a notebook does, so that its scripts run. CircuitsVis makes all its canvases at once, and
# paints them one by one. A canvas has its initial size until it is painted, and then the size of the picture.
OTHER = """([count, side]) => {
    const start = async () => {
        const other = document.body.appendChild(document.createElement("div"));
        const text = await (await fetch("/other")).text();
        other.append(document.createRange().createContextualFragment(text));
        const frame = () => new Promise(done => requestAnimationFrame(done));
        const drawn = () => [...other.querySelectorAll("canvas")].filter(canvas => canvas.width === side).length;
        while (drawn() < count) await frame();
        await frame();
        await frame();
        window.done = performance.timeOrigin + performance.now();
    };
    start();
}"""


class Bench:
    """A page, the page's server, and the service that answers its requests."""

    def __init__(self, browser: Browser) -> None:
        self.browser, self.sent, self.other = browser, 0, ""
        self.page = browser.new_page(viewport={"width": 1280, "height": 1000})
        self.page.set_default_timeout(PATIENCE)
        self.service: Any = None
        bench = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                kinds = {".js": "text/javascript", ".css": "text/css"}
                if self.path == "/blank":
                    return self.give(b"<!doctype html><meta charset=utf-8>", "text/html")
                if self.path == "/other":
                    return self.give(bench.other.encode(), "text/html")
                file = STATIC / self.path.lstrip("/")
                if file.is_file():
                    return self.give(file.read_bytes(), kinds.get(file.suffix, "text/plain"))
                return self.give(bench.html().encode(), "text/html")

            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["content-length"])))
                content, buffers = bench.service.answer(message)
                head = msgspec.json.encode({"content": content, "sizes": [len(buffer) for buffer in buffers]})
                bench.sent += len(head) + sum(map(len, buffers))
                self.give(b"".join([struct.pack(">I", len(head)), head, *buffers]), "application/octet-stream")

            def give(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("content-type", f"{kind}; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                with suppress(BrokenPipeError, ConnectionResetError):  # the browser has left the page
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def html(self) -> str:
        """Return the page with a panel."""
        target = msgspec.to_builtins(self.service.targets().resolve((5, 6)))
        traits = {
            "cache_name": "cache", "prompt": 0, "position": "last",
            "heads": [], "norm": "frozen", "wire_target": target,
            "top_k": 5, "ranking": "heads", "layer": None, "weighting": "pattern", "presentation": "matrix",
            "score": None, "tab": "attention",
        }  # fmt: skip
        return PAGE.replace("TRAITS", json.dumps(traits))

    def open(self, service: Any) -> None:
        """Open a panel without pinned heads for a service's cache, and wait until it is drawn."""
        self.service = service
        self.page.goto(self.address)
        self.page.wait_for_function("() => document.querySelector('.residscope')?.dataset.state === 'ready'")

    def timed(self, script: str, arg: Any) -> tuple[float, int]:
        """Run a script that returns when a picture was painted. Return the seconds until then, and the sent bytes."""
        self.sent, start = 0, time.time()
        return self.page.evaluate(script, arg) / 1000 - start, self.sent


SET = "async ([name, value, count]) => { model.set(name, value); return painted(drawnCards(count)); }"
THUMBS = "async () => { model.set('presentation', 'all'); return painted(drawnThumbs); }"


@contextmanager
def bench() -> Iterator[Bench]:
    """Provide a bench in headless Chromium."""
    path = os.environ.get("RESIDSCOPE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        running = Bench(browser)
        try:
            yield running
        finally:
            running.server.shutdown()
            browser.close()


def service(positions: int, layers: int, heads: int) -> Any:
    """Return a service for a random model's cache. Its heads attend to many tokens with similar weights."""
    from transformer_lens.model_bridge import TransformerBridge

    from residscope.serving.service import Service
    from tests.support import tiny

    settings = {
        "d_model": heads * 16,
        "d_head": 16,
        "n_layers": layers,
        "n_heads": heads,
        "n_ctx": positions,
        "d_mlp": 64,
    }
    model = TransformerBridge.boot_native(settings | {"d_vocab": tiny.VOCAB, "seed": 0}, tokenizer=tiny._tokenizer())
    torch.manual_seed(0)
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.randint(3, tiny.VOCAB, (1, positions)))
    return Service(cache)


def theirs(running: Bench, positions: int, heads: int, limit: int) -> tuple[float, int] | str:
    """Return seconds and bytes of CircuitsVis' `attention_patterns` for the same patterns, or why it failed."""
    from circuitsvis.attention import attention_patterns

    held = running.service.hold.get().cache
    pattern = torch.cat([held["pattern", layer][0] for layer in range(held.model.cfg.n_layers)])[:heads]
    tokens = [f" w{at % 60}" for at in range(positions)]
    # CircuitsVis' JavaScript is not counted, because a browser would load it only once.
    program = len((Path(sys.modules["circuitsvis"].__file__ or "").parent / "dist/cdn/iife.js").read_bytes())
    page = running.browser.new_page()
    try:
        page.goto(f"{running.address}/blank")
        start = time.time()
        running.other = attention_patterns(tokens=tokens, attention=pattern).local_src
        page.evaluate(OTHER, [heads, positions])
        try:
            page.wait_for_function("() => window.done", timeout=limit)
        except Error:
            size = len(running.other.encode()) - program
            return f"no picture within {limit // 1000} s, {size / 1e6:.1f} MB"
        return page.evaluate("window.done") / 1000 - start, len(running.other.encode()) - program
    finally:
        page.close()


def rows() -> list[Row]:
    """Measure everything, and return the rows."""
    beside = f"CircuitsVis {version('circuitsvis')}, `attention_patterns`"
    found: list[Row] = []
    with bench() as running:
        held = service(256, 1, 12)
        names = [f"L0H{head}" for head in range(12)]
        ours: list[tuple[float, int]] = []
        for _ in range(5):
            running.open(held)
            ours.append(running.timed(SET, ["heads", names, 12]))
        our, size = sorted(ours)[2]
        other = theirs(running, 256, 12, PATIENCE)
        if isinstance(other, str):
            figure, met, taken = f"more than {PATIENCE / 1000 / our:.0f} × faster", True, other
        else:
            their, their_size = other
            figure = f"{their / our:.0f} × faster, {their_size / size:.1f} × fewer bytes"
            met = their >= 50 * our and their_size >= 10 * size
            taken = f"{spoken(their)}, {their_size / 1e6:.2f} MB"
        note = "the median of five (CircuitsVis: once), in a page that is open; bytes without either side's program"
        work = "attention, 12 heads × 256 tokens: call to picture"
        found.append(
            Row(
                work,
                beside,
                f"{spoken(our)}, {size / 1e6:.2f} MB",
                taken,
                figure,
                "≥ 50 × faster, ≥ 10 × fewer bytes",
                met,
                note,
            )
        )
        print(markdown(found), file=sys.stderr, flush=True)
        for positions, layers, heads, thumbs in ((1024, 12, 12, True), (4096, 1, 1, False)):
            held = service(positions, layers, heads)
            found += _long(running, held, positions, beside)
            print(markdown(found[-2:]), file=sys.stderr, flush=True)
            if thumbs:
                times = []
                for _ in range(3):
                    running.open(held)
                    times.append(running.timed(THUMBS, None))
                spent, size = sorted(times)[1]
                note = "only visible heads are requested; the worst of three: " + spoken(max(times)[0])
                found.append(
                    Row(
                        f"attention, {layers * heads} thumbnails × {positions}: call to picture",
                        "",
                        f"{spoken(spent)}, {size / 1e3:.0f} kB",
                        "",
                        spoken(spent),
                        "≤ 1 s",
                        spent <= 1,
                        note,
                    )
                )
    return found


def _long(running: Bench, held: Any, positions: int, beside: str) -> list[Row]:
    """Return rows for one head of a long prompt: its picture, and the frames while the pointer moves over it."""
    times: list[tuple[float, int]] = []
    for _ in range(3):
        running.open(held)
        times.append(running.timed(SET, ["heads", ["L0H0"], 1]))
    spent, size = sorted(times)[1]
    moved: list[float] = running.page.evaluate(HOVER, 240)
    idle: list[float] = running.page.evaluate(IDLE, 240)
    # For 4096 tokens, CircuitsVis' page would be about 200 MB of JSON.
    other = theirs(running, positions, 1, PATIENCE // 2) if positions < 2000 else "not tried"
    taken = other if isinstance(other, str) else f"{spoken(other[0])}, {other[1] / 1e6:.1f} MB"
    work = f"attention, 1 head × {positions}"
    median, worst, late = statistics.median(moved), max(moved), sum(time > 25 for time in moved)
    words = f"{1000 / median:.0f} frames per second"
    without = f"without any work: {statistics.median(idle):.1f} ms, worst {max(idle):.0f} ms"
    note = f"{without}; {late} of {len(moved)} frames came late"
    return [
        Row(
            f"{work}: call to picture",
            beside,
            f"{spoken(spent)}, {size / 1e3:.0f} kB",
            taken,
            spoken(spent),
            "≤ 1 s",
            spent <= 1,
            f"the worst of three: {spoken(max(times)[0])}",
        ),
        Row(
            f"{work}: the pointer moves",
            "",
            f"median {median:.1f} ms, worst {worst:.0f} ms a frame",
            "",
            words,
            "60 frames per second",
            1000 / median >= 58,
            note,
        ),
    ]


if __name__ == "__main__":
    print(markdown(rows()))
