"""Records the kernel's replies about a tiny model's cache (`npm run record`).

`tests/texts/messages.json` has a request of each kind, for readers. Both sides are tested against it: Python gives
these replies (`test_messages.py`), and the page accepts them (`widgets/test/messages.test.ts`).

`widgets/dev/recording.json` has the replies to the requests of the views. It replaces the kernel in tests of the page.
"""

from __future__ import annotations

import json
import types
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args
from unittest import mock

import msgspec
import numpy
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from residscope.terms import ShownBy, Target, Weighting
from residscope.wire.protocol import AnyRequest

FILE = Path(__file__).parents[1] / "texts" / "messages.json"
RECORDING = Path(__file__).parents[2] / "widgets" / "dev" / "recording.json"
WORDS = ["<|im_start|>", " Mary", " John", " When", " and", " went", " Amy", " gave", " a", " drink", "\n", " שלום"]
PROMPTS = [["<|im_start|>", " When", name, " and", " Mary", " went"] for name in (" John", " Amy")]
TARGET = {"contrasts": [{"answer": [{"id": 1, "text": " Mary"}], "distractor": [{"id": 2, "text": " John"}]}]}
READS = {"contrasts": [], "inner": {"kind": "attention", "layer": 2, "head": 1, "destination": 5, "source": 2}}
MOVES = TARGET | {"through": [{"layer": 2, "head": 1, "source": 2}]}
NEXT = {"contrasts": [], "next_token": {"versus": None}}
NEURON = {"contrasts": [], "inner": {"kind": "neuron", "layer": 1, "index": 3}}
RANGES = [{"name": "beginning", "start": 0, "end": 3}, {"name": "end", "start": 3, "end": 6}]
_ROOT = TemporaryDirectory(prefix="residscope-recorded-")  # deleted when the process ends


@cache
def _tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each word, in GPT-2's byte spelling, loaded from a folder as bridges do."""
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str
    words = {word if word.startswith("<") else bytes_of(word)[0][0]: id for id, word in enumerate(WORDS)}
    inner = Tokenizer(models.WordLevel(words, unk_token=WORDS[0]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=WORDS[0], eos_token=WORDS[0]).save_pretrained(_ROOT.name)
    return PreTrainedTokenizerFast.from_pretrained(_ROOT.name)


@cache
def run() -> tuple[Any, Any]:
    """Return a model of 3 layers with 2 heads, and its cache of 2 prompts with 6 tokens.

    Model and cache are the same with each release of PyTorch and TransformerLens.
    """
    from transformer_lens.model_bridge import TransformerBridge

    sizes = {"d_model": 16, "d_head": 8, "n_layers": 3, "n_heads": 2, "n_ctx": 8, "d_mlp": 12, "d_vocab": len(WORDS)}
    sizes |= {"positional_embedding_type": "rotary"}
    model: Any = TransformerBridge.boot_native(sizes | {"seed": 0}, tokenizer=_tokenizer())
    with torch.no_grad():
        for number, (name, weight) in enumerate(sorted(model.original_model.named_parameters())):
            made = numpy.random.RandomState(number).randn(*weight.shape) * (0.3 if weight.ndim == 1 else 0.6)
            even = 0.5 if ".q." in name or ".k." in name else 1.0  # so that each head attends to several tokens
            weight.copy_(torch.from_numpy(made * even) + float("ln" in name and not name.endswith((".b", "bias"))))
        tokens = torch.tensor([[WORDS.index(word) for word in prompt] for prompt in PROMPTS])
        return model, model.run_with_cache(tokens)[1]


def sae() -> Any:
    """Return an SAE of the stream before layer 1, with 6 features and an id on Neuronpedia."""
    from tests.support.saes import Sae

    made = Sae(16, features=6, hook_name="blocks.1.hook_resid_pre", neuronpedia_id="tiny/1-res")
    with torch.no_grad():
        for number, weight in enumerate(made.parameters()):
            weight.copy_(torch.from_numpy(numpy.random.RandomState(number).randn(*weight.shape) * 0.3))
    return made


def asks() -> list[dict[str, Any]]:
    """Return a request of each kind, with most of its fields."""
    shown = {"target": TARGET, "prompt": 0, "heads": ["L1H0"]}
    return [
        {"kind": "caches"},
        {"kind": "describe"},
        {"kind": "tokens"},
        {"kind": "target"},
        {"kind": "suggest", "prompt": 0, "position": 3, "k": 2},
        {"kind": "check", "text": " went drink"},
        {"kind": "answers"},
        {"kind": "resolve", "name": "names"},
        {"kind": "attribute", "by": "head", "target": TARGET},
        {"kind": "compare", "by": "layer", "target": TARGET, "prompt": 0, "against": {"prompt": 1}},
        {
            "kind": "compare",
            "by": "head",
            "target": TARGET,
            "prompt": 0,
            "against": {"cache": "clean"},
        },  # this cache does not exist
        {"kind": "compare-attention", "layer": 1, "head": 1, "prompt": 0, "against": {"prompt": 1}},
        {"kind": "pairing", "prompt": 0, "against": {"prompt": 1, "align": "by token"}},
        {"kind": "compare-token-lens", "points": ["final_post"], "start": 4, "stop": 6, "target": TARGET, "k": 2}
        | {"prompt": 0, "against": {"prompt": 1}},
        {"kind": "effects", "target": TARGET, "prompt": 0},  # this request waits for a turn
        {"kind": "without", "against": {"without": ["L1H0"]}},
        {"kind": "neurons", "target": TARGET, "layer": 1, "k": 2, "prompt": 0},
        {"kind": "attention", "layer": 1, "head": 0, "target": TARGET, "prompt": 0, "weighting": "value"},
        {"kind": "thumbnails", "layer": 2, "target": TARGET, "prompt": 1, "weighting": "contribution", "side": 3},
        {"kind": "blend", "layer": 0, "target": TARGET, "prompt": 0, "columns": {"start": 1, "stop": 3}},
        {"kind": "scores", "score": "previous", "prompt": 0},
        {"kind": "positions", "by": "layer", "target": TARGET, "prompt": 0},
        {"kind": "token-lens", "points": ["0_pre", "final_post"], "start": 4, "stop": 6, "target": TARGET, "k": 2}
        | {"prompt": 0},
        {"kind": "next-tokens", "target": NEXT, "prompt": 0},
        {"kind": "attribute", "by": "layer", "target": READS, "prompt": 0},
        {"kind": "attribute", "by": "layer", "target": MOVES, "prompt": 1},
        {"kind": "pairs", "target": READS, "prompt": 0, "k": 2},
        {"kind": "head-tokens", "layer": 2, "head": 1, "prompt": 0, "position": 5, "source": 2, "k": 2},
        {"kind": "segments", "by": [{"name": "first", "start": 0, "end": 3}], "prompt": 0},
        {"kind": "segments", "by": "sentence", "prompt": 0},
        {"kind": "segment-map", "layer": 1, "head": 0, "by": RANGES, "target": TARGET, "prompt": 0},
        {"kind": "segment-heads", "by": RANGES, "target": TARGET, "prompt": 0, "weighting": "contribution", "k": 3},
        {"kind": "features", "target": TARGET, "prompt": 0, "k": 2},
        {"kind": "feature-tokens", "feature": 3, "prompt": 1},
        {"kind": "feature-target", "feature": 3},
        {"kind": "code", "picture": "heads", "shown": shown},
        {"kind": "page", "shown": shown},  # the first reply says that the page is not ready yet
        {"kind": "page", "shown": shown},
        {"kind": "chapter", "name": "limits"},
        {"kind": "presence", "view": "view 1", "state": "shown"},
        {"kind": "give-up", "id": "page"},
        {"kind": "attention", "layer": 3, "head": 0, "target": TARGET},  # this layer does not exist
    ]


def messages() -> list[dict[str, Any]]:
    """Return each request, its answer, and its buffers as numbers. Values that differ between runs are replaced."""
    from residscope.hosts.panel import Panel
    from residscope.serving import jobs
    from residscope.serving.dispatcher import Dispatcher
    from residscope.serving.service import Service
    from residscope.wire.envelope import answered

    model, cached = run()
    variables = {"cache": cached, "model": model, "names": [(" Mary", " John"), (" Mary", " Amy")], "sae": sae()}
    with mock.patch("IPython.core.getipython.get_ipython", return_value=types.SimpleNamespace(user_ns=variables)):
        dispatcher = Dispatcher()
        listed, _ = dispatcher.answer({"id": "list", "ask": {"kind": "caches"}})
        inline = Panel(Service(cached), (" Mary", " John"))
        panel = partial(answered, reply=inline._reply)
        ref = listed["reply"]["caches"][0]["ref"]
        found: list[dict[str, Any]] = []
        for ask in asks():
            question = {"id": ask["kind"], "ask": ask} | ({} if ask["kind"] == "caches" else {"cache": ref})
            early = ask["kind"] == "page" and found[-1]["question"]["ask"]["kind"] != "page"
            with mock.patch.object(jobs, "MOMENT", 0 if early else 60):
                answer, buffers = panel(question) if ask["kind"] == "presence" else dispatcher.answer(question)
            found.append(steady({"question": question, "answer": answer, "buffers": _readable(answer, buffers)}))
        inline.close()
        return found


def fields_of(kind: str) -> tuple[str, ...]:
    """Return the names of the fields of a request of this kind."""
    (request,) = (cls for cls in get_args(AnyRequest) if cls.__struct_config__.tag == kind)
    return request.__struct_fields__


def _readable(answer: dict[str, Any], buffers: list[bytes]) -> list[dict[str, Any]]:
    reply = answer.get("reply", {})
    kind, parts = reply.get("kind"), [*reply.get("parts", []), *filter(None, [reply.get("part")])]
    if kind == "page":
        return [{"text": buffer.decode()[:15] + "…"} for buffer in buffers]
    types = ["int8"] if kind == "thumbnails" else ["float32"] * len(buffers)
    if parts:
        types = ["float32" if part.get("wide") or part["what"] in ("reads", "brings") else "float16" for part in parts]
    return [
        {type: [_short(number) for number in numpy.frombuffer(buffer, type).tolist()]}
        for type, buffer in zip(types, buffers, strict=True)
    ]


def _short(number: float | int) -> float | int | None:
    """Return the number with six digits, or None for NaN."""
    if isinstance(number, int):
        return number
    return float(f"{number:.6g}") if number == number else None


_VOLATILE = {"ref": {"id": "…", "state": "1.1.1"}, "cache": {"id": "…", "state": "1.1.1"}, "kernel": "…", "age": 0.0}
_VOLATILE |= {"turn": "…"}
_VOLATILE_IN: dict[str, dict[str, Any]] = {"working": {"done": 0, "total": 0}, "chapter": {"text": "…"}}
_VOLATILE_IN |= {"features": {"state": "…"}, "feature-tokens": {"state": "…"}}


def steady(message: Any) -> Any:
    """Return the message with fixed values in place of those that differ between runs."""
    if isinstance(message, dict):
        known = _VOLATILE | _VOLATILE_IN.get(str(message.get("kind")), {})
        known |= {"key": "…"} if isinstance(message.get("key"), str) else {}  # the key of a direction
        known |= {"state": "…"} if "site" in message and "state" in message else {}  # an SAE
        return {
            name: steady(value) if isinstance(value, str) and name == "cache" else known.get(name, steady(value))
            for name, value in message.items()
        }
    if isinstance(message, list):
        return [steady(one) for one in message]
    return _short(message) if isinstance(message, float) else message


def text_of(found: list[dict[str, Any]]) -> str:
    """Return the text of `messages.json`: one line for each request, each answer and each buffer."""
    written = ",\n ".join(
        "{" + ",\n  ".join(f'"{name}": {_lines(value)}' for name, value in message.items()) + "}" for message in found
    )
    return f"[\n {written}\n]\n"


def _lines(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[" + ",\n   ".join(json.dumps(one, ensure_ascii=False) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def recording() -> dict[str, Any]:
    """Return a snapshot of one selection, with what is one click away, and with replies to the requests of tests."""
    from residscope.export.snapshot import Entry, snapshot
    from residscope.serving.service import Service
    from residscope.wire.shown import Shown

    service = Service(run()[1], saes={"sae": sae()})
    shown = msgspec.convert({"target": TARGET, "prompt": 0, "top_k": 3}, Shown)
    made = msgspec.to_builtins(snapshot(service.reply, "cache", shown, "all"), builtin_types=(bytes,))
    for ask in _requests_of_tests():
        answer, buffers = to_the_end(service, ({"target": TARGET} if "target" in fields_of(ask["kind"]) else {}) | ask)
        made["entries"].append(
            msgspec.to_builtins(Entry(ask, answer["reply"], buffers=buffers), builtin_types=(bytes,))
        )
    for entry in made["entries"]:
        for known in entry.get("reply", {}).get("saes", []):
            known["state"] = "…"  # as in the requests of the tests
    return made | {"saved": ""}


def to_the_end(service: Any, ask: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Repeat a request until its work no longer waits for a turn, and return the answer."""
    from residscope.serving import turns

    while True:
        with turns.granted():
            answer, buffers = service.answer({"id": "1", "ask": ask})
        if answer.get("reply", {}).get("state") != "waiting":
            return answer, buffers


def _requests_inside() -> list[dict[str, Any]]:
    """Return the requests of the views for a trail of targets inside the model."""
    from residscope.export.open_tabs import of_the_tab
    from residscope.export.view_requests import Views, on_screen
    from residscope.serving.service import Service
    from residscope.wire.caches import CacheFacts, Describe
    from residscope.wire.shown import Shown, Step

    facts, _ = Service(run()[1]).reply(Describe())
    assert isinstance(facts, CacheFacts)
    trail = [msgspec.convert({"target": target, "position": 5}, Step) for target in (TARGET, READS, MOVES, NEURON)]
    found: list[dict[str, Any]] = []
    for at, step in enumerate(trail[1:], 1):
        shown = Shown(step.target, 0, 5, top_k=3, trail=trail, step=at, tab="why")
        views = Views(shown, facts)
        found += map(msgspec.to_builtins, on_screen(views))
        found += (msgspec.to_builtins(ask) for _, asks in of_the_tab(views, [], []) for ask in asks)
    shown = Shown(trail[1].target, 0, 5, trail=trail, step=1, tab="why", why="pairs")
    found += map(msgspec.to_builtins, Views(shown, facts).why())
    plain = {json.dumps(ask, sort_keys=True): ask for ask in found if "target" in ask or ask["kind"] == "head-tokens"}
    return list(plain.values())


def _requests_of_next_tokens() -> list[dict[str, Any]]:
    """Return the requests of the views for next-token targets, at the last position with a target and at another."""
    from residscope.export.open_tabs import of_the_tab
    from residscope.export.view_requests import Views, on_screen
    from residscope.serving.service import Service
    from residscope.wire.caches import CacheFacts, Describe
    from residscope.wire.shown import Shown

    facts, _ = Service(run()[1]).reply(Describe())
    assert isinstance(facts, CacheFacts)
    target = msgspec.convert(NEXT, Target)
    found: list[dict[str, Any]] = []
    for position in (4, 1):
        views = Views(Shown(target, 0, position, top_k=3, tab="positions"), facts)
        found += map(msgspec.to_builtins, on_screen(views))
        found += (msgspec.to_builtins(ask) for _, asks in of_the_tab(views, [], []) for ask in asks)
    plain = {json.dumps(ask, sort_keys=True): ask for ask in found if "target" in ask}
    return list(plain.values())


def _of_aligned_runs(heads: list[dict[str, int]]) -> list[dict[str, Any]]:
    """Return the requests of the views about two prompts that are paired by index and by token."""
    found: list[dict[str, Any]] = [{"kind": "pairing", "prompt": 0, "against": {"prompt": 1}}]
    for align in (None, "by token"):
        against = {"prompt": 1} | ({} if align is None else {"align": align})
        points = [f"{layer}_pre" for layer in range(3)] + ["final_post"]
        lens = {"kind": "compare-token-lens", "points": points, "start": 0, "stop": 6, "k": 10, "prompt": 0}
        found.append(lens | {"against": against})
    against = {"prompt": 1, "align": "by token"}
    found.append({"kind": "pairing", "prompt": 0, "against": against})
    found += [{"kind": "compare", "by": by, "prompt": 0, "against": against} for by in get_args(ShownBy)]
    found += [{"kind": "compare-attention", "prompt": 0, "against": against} | at for at in heads]
    return found


def _requests_of_tests() -> list[dict[str, Any]]:
    every = [{"layer": layer, "head": head} for layer in range(3) for head in range(2)]
    unlisted = [{"kind": "attention", "layer": 0, "head": 0}, {"kind": "attention", "layer": 1, "head": 1}]
    ranked = ["L1H1", "L2H0", "L2H1", "L0H1", "L1H0"]
    return [
        *(ask | {"prompt": 0, "weighting": weighting} for ask in unlisted for weighting in get_args(Weighting)),
        *(ask | {"prompt": prompt} for ask in unlisted for prompt in (None, 1)),
        *({"kind": "attention", "prompt": 0, "position": 2} | at for at in every),
        *({"kind": "neurons", "prompt": 0, "position": 2, "k": 3, "layer": layer} for layer in (None, 0, 1, 2)),
        {"kind": "positions", "by": "head", "prompt": 0, "heads": ranked},
        {"kind": "positions", "by": "accumulated", "prompt": 0, "norm": "recomputed"},
        {"kind": "blend", "layer": None, "prompt": 0, "weighting": "contribution"},
        *({"kind": "compare", "by": by, "prompt": 0, "against": {"prompt": 1}} for by in get_args(ShownBy)),
        *({"kind": "compare-attention", "prompt": 0, "against": {"prompt": 1}} | at for at in every),
        *_of_aligned_runs(every),
        *({"kind": "effects", "prompt": 0, "replaced_by": by} for by in ("zero", "mean")),
        {"kind": "effects", "prompt": 0, "of": "stream", "replaced_by": "other", "against": {"prompt": 1}},
        {"kind": "without", "against": {"without": ["L1H1"]}},
        *({"kind": "compare", "by": by, "prompt": 0, "against": {"without": ["L1H1"]}} for by in get_args(ShownBy)),
        *_requests_of_next_tokens(),
        {"kind": "segments", "by": RANGES, "prompt": 0},
        *({"kind": "segment-map", "by": RANGES, "prompt": 0} | at for at in every),
        *(
            {"kind": "segment-heads", "by": RANGES, "prompt": 0} | cell
            for cell in ({}, {"destination": None, "source": 0})
        ),
        {"kind": "blend", "layer": None, "prompt": 0, "weighting": "contribution", "rows": {"start": 5, "stop": 6}},
        {"kind": "features", "prompt": 0, "state": "…"},
        {"kind": "feature-tokens", "feature": 2, "prompt": 0, "state": "…"},
        {"kind": "describe", "padding": "none"},
        {"kind": "tokens", "prompt": 0, "padding": "none"},
        *({"kind": "attribute", "by": by, "prompt": 0, "padding": "none"} for by in get_args(ShownBy)),
        *_requests_inside(),
    ]


def entries_of(made: dict[str, Any]) -> str:
    """Return the text of `recording.json`: a line for each entry."""
    rest = msgspec.json.encode(made | {"entries": []}).decode()
    entries = ",\n".join(msgspec.json.encode(entry).decode() for entry in made["entries"])
    return rest.replace('"entries":[]', f'"entries":[\n{entries}\n]') + "\n"


if __name__ == "__main__":
    FILE.write_text(text_of(messages()), encoding="utf-8")
    RECORDING.write_text(entries_of(recording()), encoding="utf-8")
