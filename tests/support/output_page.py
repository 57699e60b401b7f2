"""A page like the output of a notebook, with a panel in it. A stand-in replaces the panel's model, and this process
answers like a kernel.

A test can do what real hosts do not: leave requests without an answer, refuse any request, and set any theme.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, Route, expect

import residscope
from residscope.hosts.panel import STATIC
from residscope.wire.envelope import answered

ORIGIN = "http://output.test"
MIMES = {"js": "text/javascript", "css": "text/css"}
THEMES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "vscode_themes.json").read_text())
"""The classes and colours that VS Code 1.139 sets in a notebook's output page, for each of its own themes."""

# The styles of ipywidgets' bundle. Every page except JupyterLab's has them, whatever its theme.
WIDGETS = """
:root {
  --jp-content-font-color1: rgba(0, 0, 0, 0.87); --jp-content-font-color2: rgba(0, 0, 0, 0.54);
  --jp-layout-color1: white; --jp-layout-color2: #eeeeee; --jp-border-color2: #e0e0e0;
  --jp-ui-font-family: "Helvetica Neue", Helvetica, Arial, sans-serif; --jp-code-font-family: monospace;
}"""
# The styles of VS Code's output page. The page does not scroll: the window around it scrolls and shows a part of it.
VSCODE = """
body { margin: 0; padding: 0; overflow: hidden; }
.output { padding: 8px; overflow: auto; box-sizing: border-box; }
.output_container { overflow: hidden; }
.cell-output-ipywidget-background { background: white !important; }"""


@dataclass
class OutputPage:
    """The page, and its requests to this process."""

    page: Page
    panel: residscope.Panel
    silent: bool = False
    """Whether requests get no answer."""
    refused: dict[str, str] = field(default_factory=dict)
    """The sentence of the refusal, for each kind of request that is refused."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    held: list[dict[str, Any]] = field(default_factory=list)
    head: str = ""
    attributes: str = ""

    @property
    def view(self) -> Locator:
        return self.page.get_by_role("region", name="Residscope", exact=True)

    def open(self, around: Callable[[str], str] = "<main>{}</main>".format) -> Locator:
        """Load the page and show the panel. `around` puts the panel's element inside other elements."""
        files = {f"/panel.{kind}": (STATIC / f"panel.{kind}", mime) for kind, mime in MIMES.items()}
        body = around("<div id=output></div>")
        html = f"<!doctype html><meta charset=utf-8><title>output</title>{self.head}<body {self.attributes}>{body}"

        def serve(route: Route) -> None:
            path = route.request.url.removeprefix(ORIGIN).partition("?")[0]
            if path in files:
                file, kind = files[path]
                route.fulfill(body=file.read_text(), content_type=kind)
            else:
                route.fulfill(body=html, content_type="text/html")

        self.page.route(f"{ORIGIN}/**", serve)
        self.page.expose_function("toKernel", self._hear)
        self.page.goto(f"{ORIGIN}/")
        state = {name: value for name, value in self.panel.get_state().items() if name in self.panel.traits(sync=True)}
        plain = {name: value for name, value in state.items() if not name.startswith("_") and name != "opening"}
        plain = {name: value for name, value in plain.items() if name not in ("layout", "tabbable", "tooltip")}
        self.page.evaluate(MOUNT, plain)
        return self.view

    def ready(self) -> Locator:
        expect(self.view).to_have_attribute("data-state", "ready", timeout=15_000)
        return self.view

    def answer(self) -> None:
        """Answer the requests that got no answer, and all later requests."""
        self.silent = False
        for question in [*self.held]:
            self.held.remove(question)
            self.page.evaluate("message => window.fromKernel(message)", self._answer(question))

    def _hear(self, question: dict[str, Any]) -> dict[str, Any] | None:
        self.asked.append(question)
        if self.silent:
            self.held.append(question)
            return None
        return self._answer(question)

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if sentence := self.refused.get(question["ask"]["kind"]):
            failure = {"code": "refused", "message": sentence}
            return {"content": {"id": question["id"], "failure": failure}, "buffers": []}
        content, buffers = answered(question, self.panel._reply)
        return {"content": content, "buffers": [base64.b64encode(bytes(buffer)).decode() for buffer in buffers]}


MOUNT = """async state => {
    const css = document.createElement("link");
    css.rel = "stylesheet";
    css.href = "/panel.css";
    const styled = new Promise(done => css.addEventListener("load", done));
    document.head.append(css);
    await styled;
    const listeners = new Map();
    const emit = (event, ...args) => { for (const listener of [...(listeners.get(event) ?? [])]) listener(...args); };
    const unpacked = text => new DataView(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer);
    window.fromKernel = message => emit("msg:custom", message.content, message.buffers.map(unpacked));
    const model = {
        get: name => state[name],
        set(name, value) {
            state[name] = value;
            emit(`change:${name}`);
        },
        save_changes() {},
        on: (event, listener) => listeners.set(event, (listeners.get(event) ?? new Set()).add(listener)),
        off: (event, listener) => listeners.get(event)?.delete(listener),
        send: async question => {
            const message = await window.toKernel(question);
            if (message) window.fromKernel(message);
        },
    };
    window.model = model;
    window.emit = emit;
    const { default: entry } = await import("/panel.js");
    const el = document.getElementById("output");
    window.shown = [];
    // After each frame, note the height and the state that were painted.
    const look = () => {
        setTimeout(() => {
            const root = el.querySelector(".residscope");
            if (root) window.shown.push([root.getBoundingClientRect().height, root.dataset.state]);
        });
        requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
    window.end = new AbortController();
    entry.render({ model, el, signal: window.end.signal });
}"""


def in_vscode(theme: str) -> dict[str, str]:
    """Return the `<head>` and the attributes of `<body>` of VS Code's output page in one of its themes."""
    look = THEMES[theme]
    colours = "; ".join(f"{name}: {value}" for name, value in look["colours"].items())
    ground = look["colours"]["--vscode-editor-background"]
    # The page has no background colour, so the editor's colour is visible.
    head = f"<style>:root {{ {colours} }} html {{ background: {ground}; }} {WIDGETS} {VSCODE}</style>"
    return {"head": head, "attributes": f'class="{look["class"]}" data-vscode-theme-kind="{look["kind"]}"'}


def as_output(element: str) -> str:
    """Return the elements that VS Code puts around a widget."""
    return (
        '<div id="container" class="widgetarea"><div class="cell_container"><div class="output_container">'
        '<div class="output"><div class="cell-output-ipywidget-background"><div class="lm-Widget">'
        f"{element}</div></div></div></div></div></div>"
    )
