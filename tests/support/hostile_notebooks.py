"""An attacker's notebooks, and one honest notebook. Each has one output with Residscope's MIME type.

The attacker's outputs try to do harm when they are shown. Code that runs sets a flag in the page (`window.hacked`), and
addresses name a host that does not exist. The tests look for this flag and for requests to other servers, and also for
foreign elements, for contents outside the output, and for a page that does not answer.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

import residscope
from residscope.export.snapshot import opening
from tests.support import tiny

MIME = "application/vnd.residscope.panel+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
CALL = "window.hacked=true"
REMOTE = "http://hostile.invalid/x.png"
IMG = f"<img src=x onerror={CALL}>"
SCRIPT = f"</script><script>{CALL}</script>"
STYLE = f'x"><style>*{{position:fixed;background:url({REMOTE})}}</style>'
LIT = {"_$litType$": 1, "strings": [IMG], "values": []}
DIRECTIVE = {"_$litDirective$": {}, "values": [IMG]}
COMBINING = "a" + "\u0301\u0489" * 225

Snapshot = dict[str, Any]


@dataclass
class Hostile:
    """A notebook file.

    Attributes:
        data: The data of the only output.
        drawn: Whether an untrusted notebook shows a picture instead of a sentence.
        metadata: The metadata of the notebook.
        cell: The metadata of the cell.
        live: Whether the output holds a live widget, which JupyterLab runs when the notebook is trusted.
    """

    data: dict[str, Any]
    drawn: bool
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    cell: dict[str, Any] = field(default_factory=dict[str, Any])
    live: bool = False

    def text(self) -> str:
        """Return the text of the file."""
        output = {"output_type": "display_data", "data": self.data, "metadata": {}}
        code = {"cell_type": "code", "id": "cell-0", "metadata": self.cell, "execution_count": 1, "source": "panel"}
        kernel = {"name": "tests", "display_name": "tests", "language": "python"}
        return json.dumps(
            {
                "cells": [{**code, "outputs": [output]}],
                "metadata": {"kernelspec": kernel, **self.metadata},
                "nbformat": 4,
                "nbformat_minor": 5,
            }
        )


def honest() -> Snapshot:
    """Return a snapshot of a view of a tiny model's cache, in the form of `recorder.ts`."""
    model = tiny.boot("llama")
    cache = tiny.run(model)[2]
    panel = residscope.inspect(cache, (5, 6), heads=["1.1"], prompt=0, show=False)
    whole = json.loads(msgspec.json.encode(opening(panel._service.reply, "cache", panel.shown)))
    usual = whole.pop("defaults")
    for entry in whole["entries"]:  # defaults are left out, as in the requests of the views
        kind = entry["ask"]["kind"]
        entry["ask"] = {
            name: value for name, value in entry["ask"].items() if value not in (None, usual[kind].get(name))
        }
    return {**whole, "defaults": {}}


def notebooks() -> Iterator[tuple[str, Hostile]]:
    """Yield all notebooks with their names."""
    whole = honest()
    yield "honest", _picture(whole)
    yield from _live_widgets(whole)
    yield from _texts(whole)
    yield from _objects(whole)
    yield from _sizes(whole)
    yield from _largest(whole)
    yield from _forged(whole)


def _picture(snapshot: Any, *, drawn: bool = True, model_id: Any = "gone", **more: Any) -> Hostile:
    data = {MIME: {"model_id": model_id, "snapshot": snapshot}, "text/plain": "Panel(cache)"}
    return Hostile(data, drawn, **more)


def _changed(whole: Snapshot, change: Callable[[Snapshot], Any]) -> Snapshot:
    copy = deepcopy(whole)
    change(copy)
    return copy


def _entry(snapshot: Snapshot, kind: str, by: str | None = None) -> dict[str, Any]:
    return next(e for e in snapshot["entries"] if e["ask"]["kind"] == kind and by in (None, e["ask"].get("by")))


# --- a live widget in the place of a picture ------------------------------------------------------------------------
def _live_widgets(whole: Snapshot) -> Iterator[tuple[str, Hostile]]:
    view = {"version_major": 2, "version_minor": 0, "model_id": "evil"}
    controls = {"model_module": "@jupyter-widgets/controls", "model_module_version": "2.0.0"}
    base = {"model_module": "@jupyter-widgets/base", "model_module_version": "2.0.0"}
    state = {
        "evil": {**controls, "model_name": "HTMLModel", "state": {"value": IMG, "layout": "IPY_MODEL_layout"}},
        "layout": {**base, "model_name": "LayoutModel", "state": {}},
    }
    metadata = {"widgets": {WIDGET_STATE: {"version_major": 2, "version_minor": 0, "state": state}}}
    broken = _changed(whole, lambda s: s.update(entries=[{"ask": {"kind": "describe"}}]))
    invalid = _changed(whole, lambda s: _entry(s, "describe")["reply"].update(layers="3"))
    for name, held in {
        "no picture": {"model_id": "evil"},
        "no picture, no id": {},
        "a picture that is a string": {"model_id": "evil", "snapshot": IMG},
        "a picture without figures": {"model_id": "evil", "snapshot": broken},
        "a picture with a wrong type": {"model_id": "evil", "snapshot": invalid},
        "a list as the whole data": [IMG],
        "a string as the whole data": IMG,
        "an id that is a list": {"model_id": ["evil"]},
        "an id that is __proto__": {"model_id": "__proto__"},
    }.items():
        data = {MIME: held, WIDGET_VIEW: view, "text/plain": "Panel(cache)"}
        yield f"widget, {name}", Hostile(data, False, metadata, live=True)
    data = {MIME: {"model_id": "evil"}, WIDGET_VIEW: view, "text/html": IMG, "text/plain": IMG}
    yield "widget, says that it is trusted", Hostile(data, False, metadata, {"trusted": True}, live=True)
    data = {MIME: {"model_id": "evil", "snapshot": whole}, WIDGET_VIEW: view, "text/html": IMG}
    yield "widget, behind an honest picture", Hostile(data, True, metadata, live=True)


# --- texts ----------------------------------------------------------------------------------------------------------
def _texts(whole: Snapshot) -> Iterator[tuple[str, Hostile]]:
    for name, text in {
        "HTML": IMG,
        "a script": SCRIPT,
        "styles": STYLE,
        "an address": f"url({REMOTE})",
        "a link": f"javascript:{CALL}",
        "marks above marks": COMBINING,
        "right to left": "\u202e\u2066gnirts\u2067",
        "1,900 letters": "W" * 1_900,
    }.items():
        yield f"text, {name}", _picture(_changed(whole, lambda s, text=text: _put_text(s, text)))


def _put_text(snapshot: Snapshot, text: str) -> None:
    """Put a text into many fields that may hold any text, in some of them changed or shortened."""
    snapshot["name"] = text
    for contrast in snapshot["selection"]["target"]["contrasts"]:
        for token in [*contrast["answer"], *contrast["distractor"]]:
            token["text"] = text
    snapshot["lacks"] = [text[:200]]
    snapshot["defaults"] = {text: {text: text}}
    for entry in snapshot["entries"]:
        reply = entry["reply"]
        reply |= {name: text for name in ("name", "model", "dtype", "device", "measured_from") if name in reply}
        reply |= {name: [text, *reply[name][1:]] for name in ("missing",) if reply.get(name)}
        if "notes" in reply:
            reply["notes"] = [text, f"`{text}`"]
        for token in reply.get("tokens", []):
            token["text"] = text
            token["varies"] = [text]


# --- values of a wrong type, and unknown values ---------------------------------------------------------------------
def _objects(whole: Snapshot) -> Iterator[tuple[str, Hostile]]:
    def row(to: Any) -> Callable[[Snapshot], Any]:
        return lambda s: _entry(s, "attribute", "head")["reply"]["components"]["kinds"].__setitem__(0, to)

    def token(to: Any) -> Callable[[Snapshot], Any]:
        return lambda s: _entry(s, "tokens")["reply"]["tokens"][0].update(text=to)

    changes: dict[str, Callable[[Snapshot], Any]] = {
        "a lit template as a row": row(LIT),
        "a lit template as a token": token(LIT),
        "a lit directive as a token": token(DIRECTIVE),
        "a listener as a name": lambda s: s.update(name={"handleEvent": CALL, "toString": CALL}),
        "a list as a date": lambda s: s.update(saved=[IMG]),
        "an unknown weighting": lambda s: s["selection"].update(weighting=STYLE),
        "an unknown tab": lambda s: s["selection"].update(tab=IMG),
        "an unknown head": lambda s: s["selection"].update(heads=[IMG]),
        "a style as a number": lambda s: s["selection"].update(top_k=STYLE),
        "a word instead of a number": lambda s: _entry(s, "attribute", "head")["reply"].update(measured="NaN"),
        "nothing for numbers": lambda s: _entry(s, "attribute", "head")["reply"].update(constant=None),
        "100 nested lists": lambda s: s["selection"].update(target=_nested(100)),
    }
    for name, change in changes.items():
        yield f"object, {name}", _picture(_changed(whole, change), drawn=False)
    prototypes = json.loads(json.dumps(whole)[:-1] + ', "__proto__": {"trusted": true}, "constructor": {"x": 1}}')
    prototypes["selection"]["__proto__"] = {"tab": "prompts"}
    _entry(prototypes, "describe")["reply"]["__proto__"] = {"layers": 1}
    yield "object, prototypes", _picture(prototypes)


def _nested(depth: int) -> Any:
    inner: Any = 1
    for _ in range(depth):
        inner = [inner]
    return inner


# --- sizes ----------------------------------------------------------------------------------------------------------
def _sizes(whole: Snapshot) -> Iterator[tuple[str, Hostile]]:
    def facts(**to: Any) -> Callable[[Snapshot], Any]:
        return lambda s: _entry(s, "describe")["reply"].update(to)

    def attention(**to: Any) -> Callable[[Snapshot], Any]:
        return lambda s: _entry(s, "attention")["reply"].update(to)

    def tokens(count: int) -> Callable[[Snapshot], Any]:
        def change(s: Snapshot) -> None:
            facts(positions=count, last=[count - 1] * _entry(s, "describe")["reply"]["prompts"])(s)
            _entry(s, "tokens")["reply"]["tokens"] = [{"text": "x"}] * count

        return change

    every = [f"L{layer}H{head}" for layer in range(300) for head in range(100)]

    def reply(kind: str, by: str | None = None, **to: Any) -> Callable[[Snapshot], Any]:
        return lambda s: _entry(s, kind, by)["reply"].update(to)

    changes: dict[str, Callable[[Snapshot], Any]] = {
        "350,000 notes": reply("attribute", "head", notes=["n"] * 350_000),
        "a note of 900,000 code spans": reply("attribute", "head", notes=["`a`" * 900_000]),
        "300,000 rows": _rows("accumulated", 300_000),
        "50,000 contrasts": lambda s: (_prompts(50_000)(s), _contrasts(50_000)(s)),
        "3,000 layers of 3,000 heads": facts(layers=3000, heads=3000),
        "1e308 layers": facts(layers=1e308),
        "a negative number of layers": facts(layers=-3),
        "30,000 pinned heads": lambda s: (facts(layers=300, heads=100)(s), s["selection"].update(heads=every)),
        "a billion positions": facts(positions=10**9),
        "100,000 tokens": tokens(100_000),
        "10,000 tokens, but values for 7": tokens(10_000),
        "10 million prompts": facts(prompts=10**7),
        "a map of a billion positions": attention(rows={"start": 0, "stop": 10**9}),
        "a map of 100,000 positions": attention(positions=100_000),
        "a map with a step of 0": attention(step=0),
        "half a map": lambda s: _entry(s, "attention").update(buffers=["AAAA"]),
        "buffers that are not numbers": lambda s: _entry(s, "attribute", "head").update(buffers=[IMG]),
        "100,000 entries": lambda s: s.update(entries=[{"ask": {"kind": "describe"}}] * 100_000),
        "a name of 4 MB": lambda s: s.update(name="x" * 4_000_000),
    }
    for name, change in changes.items():
        yield f"size, {name}", _picture(_changed(whole, change), drawn=False)


# --- the largest pictures that are drawn ----------------------------------------------------------------------------
def _largest(whole: Snapshot) -> Iterator[tuple[str, Hostile]]:
    def layers(s: Snapshot, layers: int, heads: int) -> None:
        _entry(s, "describe")["reply"] |= {"layers": layers, "heads": heads}
        for by, count in {"head": layers * heads, "layer": 2 * layers + 1, "accumulated": 2 * layers + 1}.items():
            _rows(by, count)(s)

    def pinned(s: Snapshot) -> None:
        one = _entry(s, "attention")
        layers(s, 16, 16)
        s["entries"].remove(one)
        s["selection"]["heads"] = [f"L{head // 16}H{head % 16}" for head in range(64)]
        for head in range(64):
            place = {"layer": head // 16, "head": head % 16}
            s["entries"].append({**one, "ask": one["ask"] | place, "reply": one["reply"] | place})

    def positions(s: Snapshot, count: int) -> None:
        _without_attention(s)
        facts = _entry(s, "describe")["reply"]
        facts |= {"positions": count, "last": [count - 1] * facts["prompts"]}
        _entry(s, "tokens")["reply"]["tokens"] = [{"text": "x"}] * count

    def mapped(s: Snapshot) -> None:
        positions(s, 2_000)
        s["selection"]["tab"] = "positions"
        ask = {"kind": "positions", "by": "layer", "prompt": 0, "norm": "frozen", "heads": []}
        reply = {"kind": "positions", "by": "layer", "components": _table(75), "positions": 2_000, "notes": []}
        s["entries"].append({"ask": ask, "reply": reply, "buffers": [_floats(0.5, 150_000), _floats(0.5, 2_000)]})

    def asked(s: Snapshot) -> None:
        _prompts(4_096)(s)
        _contrasts(4_096)(s)
        reply = {
            "kind": "neurons",
            "components": _table(0),
            "count": 0,
            "layers": 0,
            "total": 0,
            "bias": 0,
            "notes": [],
        }
        for k in range(900):
            ask = {"kind": "neurons", "layer": k % 3, "k": 1 + k % 50, "prompt": k}
            s["entries"].append({"ask": ask, "reply": reply, "buffers": [""]})

    def noted(s: Snapshot) -> None:
        for by in ("head", "layer", "accumulated"):
            _entry(s, "attribute", by)["reply"]["notes"] = [f"{by} {number} " + "`a` " * 450 for number in range(50)]

    changes: dict[str, Callable[[Snapshot], Any]] = {
        "1,000 layers of 20 heads": lambda s: (_without_attention(s), layers(s, 1_000, 20)),
        "64 pinned heads": pinned,
        "40,000 positions": lambda s: positions(s, 40_000),
        "40,000 prompts": _prompts(40_000),
        "a map of 150,000 cells": mapped,
        "900 requests with 4,096 contrasts": asked,
        "150 notes of 450 code spans": noted,
    }
    for name, change in changes.items():
        yield f"largest, {name}", _picture(_changed(whole, change))


def _table(count: int) -> dict[str, Any]:
    return {"kinds": ["embed"], "kind": [0] * count, "layer": [None] * count, "index": [None] * count}


def _rows(by: str, count: int) -> Callable[[Snapshot], Any]:
    def change(s: Snapshot) -> None:
        entry = _entry(s, "attribute", by)
        entry["reply"]["components"] = _table(count)
        entry["buffers"] = [_floats(0.001, count)]

    return change


def _prompts(count: int) -> Callable[[Snapshot], Any]:
    def change(s: Snapshot) -> None:
        _without_attention(s)
        facts = _entry(s, "describe")["reply"]
        facts |= {"prompts": count, "last": [facts["positions"] - 1] * count}

    return change


def _contrasts(count: int) -> Callable[[Snapshot], Any]:
    one = {"answer": [{"id": 1, "text": "x"}], "distractor": []}
    return lambda s: s["selection"]["target"].update(contrasts=[one] * count)


def _without_attention(s: Snapshot) -> None:
    s["entries"] = [entry for entry in s["entries"] if entry["ask"]["kind"] != "attention"]
    s["selection"]["heads"] = []


def _floats(value: float, count: int) -> str:
    return base64.b64encode(np.full(count, value, np.float32).tobytes()).decode()


# --- false values -----------------------------------------------------------------------------------------------
def _forged(whole: Snapshot) -> Iterator[tuple[str, Hostile]]:
    def rows(to: float, **reply: Any) -> Callable[[Snapshot], Any]:
        def change(s: Snapshot) -> None:
            entry = _entry(s, "attribute", "head")
            count = len(entry["reply"]["components"]["kind"])
            entry["buffers"] = [_floats(to, count)]
            entry["reply"] |= {"constant": 0.0, "own": True, "measured_from": "the model", **reply}

        return change

    lies = {"measured": 9.999, "unexplained": 0.0, "worst": 0.0}
    yield "forged, a tick", _picture(_changed(whole, rows(0.001, **lies, tolerance=1e-4)))
    yield "forged, a tolerance", _picture(_changed(whole, rows(0.001, **lies | {"unexplained": 9.9}, tolerance=1e9)))
    yield "forged, not a number", _picture(_changed(whole, rows(np.nan, **lies, tolerance=1e-4)))
    yield "forged, infinite rows", _picture(_changed(whole, rows(np.inf, **lies, tolerance=1e-4)))
    yield "forged, a date", _picture(_changed(whole, lambda s: s.update(saved="2126-01-01T00:00:00+00:00")))
    unready = _changed(whole, lambda s: s.update(entries=[e for e in s["entries"] if e["ask"].get("by") != "head"]))
    yield "forged, no contributions of heads", _picture(unready, drawn=False)
    code = {"kind": "code", "code": f"import os; os.system('touch hacked')  # {IMG}"}
    page = {"kind": "page", "name": "../../hacked.html"}
    shown = whole["selection"]
    more = [{"ask": {"kind": "code", "picture": p, "shown": shown}, "reply": code} for p in ("heads", "lens", "layers")]
    more.append({"ask": {"kind": "page", "shown": shown}, "reply": page, "buffers": [_base64(SCRIPT)]})
    yield "forged, code and a page", _picture(_changed(whole, lambda s: s["entries"].extend(more)))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
