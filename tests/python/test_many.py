"""Many caches in one call: values equal those of single calls, no cache is kept, and a call can be resumed."""

from __future__ import annotations

import copy
import errno
import gc
import json
import os
import re
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers.models import WordLevel

import residscope
from residscope import ResidscopeError
from residscope.many.accumulator import ResultLayout, Spread
from residscope.many.notes import notes_of
from residscope.terms import Component
from tests.support import many_worker, pages, tiny

ANSWERS = many_worker.ANSWERS
many = partial(residscope.attribute_many, progress=False)


@pytest.fixture(scope="module")
def model():
    return tiny.boot("native")


@pytest.fixture(scope="module")
def pairs(model):
    """Caches of one to three prompts each, with their answers."""
    return [many_worker.item(model, number) for number in range(5)]


def close(one, other):
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


QUESTIONS = {
    "head": {},
    "layer": {"by": "layer"},
    "lens": {"by": "accumulated", "norm": "recomputed"},
    "neuron": {"by": "neuron", "layers": [0, 2]},
    "heads at all positions": {"position": "all"},
    "source": {"by": "source", "heads": ["0.0", "2.1"]},
    "sources at all positions": {"by": "source", "heads": ["0.0", "2.1"], "position": "all"},
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_many_caches_have_the_values_of_single_calls(pairs, question, tmp_path):
    each = [residscope.attribute(cache, answers, **question) for cache, answers in pairs]
    axis = each[0].axes.index("batch")
    values = torch.cat([one.values for one in each], axis)
    whole = many(pairs, **question)
    assert torch.equal(whole.values, values)
    for name in ("measured", "constant", "unexplained"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(one, name) for one in each], axis - 1))
    assert (whole.labels, whole.axes, whole.heads, whole.parts) == (
        each[0].labels, each[0].axes, each[0].heads, each[0].parts,
    )  # fmt: skip
    assert whole.items == [0, 1, 1, 2, 2, 2, 3, 4, 4]

    summary = many(iter(pairs), **question, keep="summary")
    close(summary.mean(), values.mean(axis))
    close(summary.std(), values.std(axis))
    assert torch.equal(summary.measured, whole.measured)
    assert (summary.count, summary.items, summary.labels) == (9, whole.items, whole.labels)
    assert summary.top(2)[0][0] == whole.top(2)[0][0]
    close(torch.tensor(summary.to_frame()["std"].to_numpy()).flatten(), summary.std().flatten())
    assert "mean of 9 prompts" in summary.to_plotly().layout.title.text

    for keep, wanted in (("values", whole), ("summary", summary)):  # resumed from a file in a second call
        path = tmp_path / f"{keep}.npz"
        many(pairs[:3], **question, keep=keep, resume=path)
        resumed = many(pairs, **question, keep=keep, resume=path)
        close(resumed.mean(), wanted.mean())
        close(resumed.std(), wanted.std())
        assert resumed.items == whole.items
        assert torch.equal(resumed.unexplained, whole.unexplained)


def test_forms_of_items(model, pairs):
    cache, answers = pairs[2]
    with torch.no_grad():
        logits = model(cache["embed.hook_in"]) + 1
    items = [
        cache,
        (cache, answers),
        [cache, None],
        lambda: cache,
        partial(many_worker.item, model, 2),
        (cache, "w7", {"logits": logits, "position": [0, 1, 2]}),
    ]
    result = many(items, ANSWERS)
    one = residscope.attribute(cache, ANSWERS).values
    for place in range(5):
        close(result.values[:, 3 * place : 3 * place + 3], one)
    other = residscope.attribute(cache, "w7", logits=logits, position=[0, 1, 2])
    close(result.values[:, 15:], other.values)
    close(result.measured[15:], other.measured)
    assert result.measured_from == f"{residscope.attribute(cache, ANSWERS).measured_from}; the given logits"


@pytest.mark.parametrize("kind", ["generator", "functions", "skipped"])
def test_no_cache_is_kept(model, kind):
    seen: list[weakref.ref] = []

    def make(number):
        # Earlier caches were freed before this cache is made, without garbage collection.
        assert all(alive() is None for alive in seen)
        cache, answers = many_worker.item(model, number)
        seen.append(weakref.ref(cache["blocks.1.hook_resid_post"]))
        return cache, "nothing" if kind == "skipped" and number else answers

    items = [partial(make, number) for number in range(4)]
    gc.collect()
    gc.disable()
    try:
        result = many(items if kind == "functions" else (item() for item in items), on_error="skip")
        assert all(alive() is None for alive in seen)
    finally:
        gc.enable()
    assert len(seen) == 4
    assert len(result.skipped) == (3 if kind == "skipped" else 0)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("keep", ["values", "summary"])
@pytest.mark.parametrize("safe", ["file", "memory"])
def test_after_an_interrupt_or_an_error_no_item_is_made_again(model, keep, safe, tmp_path):
    path = tmp_path / "kept.npz"
    made: list[int] = []
    breaks = {2: KeyboardInterrupt, 3: RuntimeError}

    def make(number):
        if error := breaks.pop(number, None):
            raise error("stop")
        return many_worker.item(model, number, made)

    items = [partial(make, number) for number in range(5)]
    go = partial(many, items, by="layer", keep=keep)
    whole = many([many_worker.item(model, number) for number in range(5)], by="layer", keep=keep)
    with pytest.raises(KeyboardInterrupt) as first:
        go(resume=path if safe == "file" else None)
    assert first.value.partial.items == [0, 1, 1]
    if sys.version_info >= (3, 11):  # earlier versions have no notes on exceptions
        assert "2 items done" in " ".join(first.value.__notes__)
    with pytest.raises(RuntimeError) as second:  # a second early end, by an error
        go(resume=path if safe == "file" else first.value.partial)
    assert second.value.partial.items == [0, 1, 1, 2, 2, 2]
    result = go(resume=path if safe == "file" else second.value.partial)
    assert made == [0, 1, 2, 3, 4]  # each item was made once
    close(result.mean(), whole.mean())
    close(result.std(), whole.std())
    assert result.items == whole.items
    assert len(first.value.partial.items) == 3  # the result that was passed did not change
    if safe == "file":
        go(resume=path)
        assert made == [0, 1, 2, 3, 4]
        assert [file.name for file in tmp_path.iterdir()] == ["kept.npz"]


@pytest.mark.parametrize("end", ["interrupt", "error", "the last save", "a second interrupt"])
@pytest.mark.parametrize("call", ["attribute_many", "ablate_many"])
def test_if_the_results_cannot_be_saved_the_first_error_is_raised_with_the_results(
    pairs, call, end, tmp_path, monkeypatch
):
    path = tmp_path / "kept.npz"

    def full(*_, **__):
        raise KeyboardInterrupt if end == "a second interrupt" else OSError(errno.ENOSPC, "No space left on device")

    def third():
        monkeypatch.setattr(np, "savez", full)
        if end in ("interrupt", "a second interrupt"):
            raise KeyboardInterrupt("the first")
        if end == "error":
            raise RuntimeError("the first")
        return pairs[2]

    many_of = partial(getattr(residscope, call), progress=False)
    done = 3 if end == "the last save" else 2
    wanted = many_of(pairs[:done])
    with pytest.raises((KeyboardInterrupt, RuntimeError, OSError)) as error:
        many_of([*pairs[:2], third], resume=path)
    assert type(error.value) is {"error": RuntimeError, "the last save": OSError}.get(end, KeyboardInterrupt)
    assert end == "the last save" or str(error.value) == "the first"
    assert error.value.partial.items == wanted.items
    assert torch.equal(error.value.partial.mean(), wanted.mean())
    if sys.version_info >= (3, 11):
        notes = " ".join(error.value.__notes__)
        assert f"{done} items done: in this exception's `.partial`" in notes
        assert f"could not be saved in {str(path)!r}" in notes
        assert end == "a second interrupt" or "No space left on device" in notes
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    resumed = many_of(pairs[:3], resume=error.value.partial)
    assert torch.equal(resumed.mean(), many_of(pairs[:3]).mean())


def test_completed_items_are_saved_every_half_minute(pairs, tmp_path, monkeypatch):
    from residscope.many import checkpoint

    path, now, kept = tmp_path / "kept.npz", [0.0], []
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def make(number, seconds):
        kept.append(list(checkpoint.read(path, {}).results) if path.exists() else [])
        now[0] = seconds
        return pairs[number]

    many([partial(make, number, seconds) for number, seconds in enumerate((0, 29, 31, 60, 62))], resume=path)
    assert kept == [[], [], [], [0, 1, 2], [0, 1, 2]]  # saved after 31 seconds, and again after 62
    assert list(checkpoint.read(path, {}).results) == [0, 1, 2, 3, 4]
    assert many(pairs).items == many(pairs, resume=path).items


def test_a_file_is_written_again_only_after_new_work(pairs, tmp_path):
    path = tmp_path / "kept.npz"
    many(pairs[:2], resume=path)
    written = path.stat()

    def third():
        now = path.stat()
        assert (now.st_ino, now.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
        return pairs[2]

    assert many([*pairs[:2], third], resume=path).items == [0, 1, 1, 2, 2, 2]


def test_an_iterator_is_advanced_to_the_first_new_item(pairs, tmp_path):
    path = tmp_path / "kept.npz"

    def stream(stop=None):
        for number, pair in enumerate(pairs):
            if number == stop:
                raise KeyboardInterrupt
            yield pair

    with pytest.raises(KeyboardInterrupt):
        many(stream(3), resume=path)
    assert torch.equal(many(stream(), resume=path).values, many(pairs).values)
    begun = stream()
    next(begun)
    with pytest.raises(ResidscopeError, match="make a new one"):
        many(begun, resume=path)
    for fewer in (pairs[:2], iter(pairs[:2]), iter([])):
        with pytest.raises(ResidscopeError, match="but 5 are done already"):
            many(fewer, resume=path)


@pytest.mark.parametrize("layers", [[0, 2], (0, 2), range(0, 3, 2)], ids=["list", "tuple", "range"])
def test_the_type_of_a_sequence_does_not_matter_when_resuming(pairs, layers, tmp_path):
    path = tmp_path / "kept.npz"
    result = many(pairs[:2], by="neuron", layers=[0, 2], resume=path)
    made: Any = [lambda: pytest.fail("an item was made")] * 2
    assert torch.equal(many(made, by="neuron", layers=layers, resume=path).values, result.values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"by": "layer"}, 'was made with `by="head"`, not `by="layer"`'),
        ({"norm": "recomputed"}, 'was made with `norm="frozen"`, not `norm="recomputed"`'),
        ({"position": 3}, 'was made with `position="last"`, not `position=3`'),
        ({"answers": ("w5", "w7")}, r'answers=\("w5", "w6"\)`, not `answers=\("w5", "w7"\)'),
        ({"answers": torch.zeros(24)}, r"not `answers=array\[24\]"),
        ({"keep": "summary"}, 'keep="values"'),
        ({"model": "compatible"}, "Item 2: The resumed results were made with another model"),
        ({"model": "other"}, "Item 2: "),
    ],
)
def test_resumed_results_must_fit_the_call(pairs, change, said, tmp_path):
    path = tmp_path / "kept.npz"
    caches = [cache for cache, _ in pairs]
    same: dict[str, Any] = {"answers": ANSWERS, "resume": path}
    same |= {"by": "accumulated"} if "norm" in change else {}  # only the lens can be recomputed
    many(caches[:2], **same)
    if "model" in change:
        other = tiny.boot("native", compatible=True) if change["model"] == "compatible" else tiny.boot("native-rms")
        caches = [*caches[:2], many_worker.item(other, 2)[0]]
        change = {}
    before = path.read_bytes()
    with pytest.raises(ResidscopeError, match=said):
        many(caches, **same | change)
    if change:
        assert path.read_bytes() == before


def other_special(tokenizer):
    tokenizer.pad_token = "w3"


def other_words(tokenizer):
    words = tokenizer.get_vocab()
    words["w20"], words["w21"] = words["w21"], words["w20"]
    tokenizer._tokenizer.model = WordLevel(words, unk_token="<pad>")


OTHER_TOKENIZER = "Item 2: The resumed results were made with another tokenizer: "

TOKENIZERS = {
    "special tokens": (other_special, OTHER_TOKENIZER + "pad_token_id was 0, "),
    "words": (other_words, OTHER_TOKENIZER + "some of its tokens were different"),
    "one more word": (lambda tokenizer: tokenizer.add_tokens(["new"]), "number of tokens was 64, now it is 65"),
    "padding side": (
        lambda tokenizer: setattr(tokenizer, "padding_side", "left"),
        "padding_side was 'right', now it is 'left'",
    ),
    "no tokenizer": (None, OTHER_TOKENIZER),
}


@pytest.mark.parametrize("what", TOKENIZERS)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_resumed_results_must_have_the_same_tokenizer(what, on_error, tmp_path):
    """The tokenizer decides which tokens are padding, and which token a word is."""
    change, said = TOKENIZERS[what]
    path, model = tmp_path / "kept.npz", tiny.boot("native")
    caches = [many_worker.item(model, number)[0] for number in range(4)]
    go = partial(many, answers=(5, 6), resume=path)
    go(caches[:2])
    model.tokenizer = copy.deepcopy(model.tokenizer)  # an equal tokenizer is accepted
    assert go(caches[:3]).items == go(caches[:3]).items
    path.unlink()
    go(caches[:2])
    before = path.read_bytes()
    if change is None:
        model.tokenizer = None
    else:
        change(model.tokenizer)
    with pytest.raises(ResidscopeError, match=re.escape(said)):
        go(caches, on_error=on_error)
    assert path.read_bytes() == before


def test_several_tokenizers_in_one_run_are_noticed():
    model = tiny.boot("native")
    model.tokenizer = copy.deepcopy(model.tokenizer)

    def items():
        yield many_worker.item(model, 0)[0]
        model.tokenizer.pad_token = "w3"
        yield many_worker.item(model, 1)[0]

    assert any("several tokenizers" in note for note in many(items(), ANSWERS).notes)


def test_an_old_file_without_a_tokenizer_can_be_resumed(pairs, tmp_path):
    path = tmp_path / "kept.npz"
    many(pairs[:2], resume=path)
    kept = dict(np.load(path))
    header = json.loads(bytes(kept["header"]))
    header["facts"] = [facts[:5] for facts in header["facts"]]
    np.savez(path, **kept | {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)})
    assert torch.equal(many(pairs, resume=path).values, many(pairs).values)


def test_an_unusable_path_is_refused_before_the_work(pairs, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("mine")
    cut = tmp_path / "cut.npz"
    many(pairs[:2], resume=cut)
    cut.write_bytes(cut.read_bytes()[:-300])
    for path, said in (
        (tmp_path / "none/kept.npz", "make it first"),
        (tmp_path, "pass the name of a file"),
        (text, "is not a file that `attribute_many` saved"),
        (cut, "is not a file that `attribute_many` saved"),
        (3, "was given int"),
    ):
        with pytest.raises(ResidscopeError, match=said):
            many([lambda: pytest.fail("an item was made")], ANSWERS, resume=path)
    assert text.read_text() == "mine"


def spoiled(cache):
    changed = {name: tensor.clone() for name, tensor in cache.cache_dict.items()}
    changed["blocks.1.hook_resid_post"][0, 2] = float("nan")
    changed["blocks.1.hook_mlp_out"][:] = float("nan")
    return type(cache)(changed, cache.model)


BAD = {
    "NaN": (lambda pairs: spoiled(pairs[1][0]), "The cache holds NaN"),
    "no cache": (lambda _: "a prompt", "needs an ActivationCache, but was given a str"),
    "run_with_cache's pair": (lambda pairs: (torch.zeros(1), pairs[1][0]), "in an item the cache comes first"),
    "too many entries": (lambda pairs: (*pairs[1], {}, {}), "It must be a cache, "),
    "wrong options": (lambda pairs: (*pairs[1], {"by": "layer"}), "a dictionary of options"),
    "too many answers": (lambda pairs: (pairs[1][0], ["w5"] * 7), "7 answers were given for 2 prompts"),
    "another model": (lambda _: many_worker.item(tiny.boot("native-attention-only"), 1), "it lacks `0_mlp_out`"),
}


@pytest.mark.parametrize(("make", "said"), BAD.values(), ids=BAD)
def test_a_bad_item_is_named_or_left_out(pairs, make, said):
    items = [pairs[0], pairs[2], make(pairs), pairs[4]]
    with pytest.raises(ResidscopeError, match=r"^Item 2: ") as refused:
        many(items, ANSWERS)
    assert said in str(refused.value)
    assert refused.value.partial.items == [0, 1, 1, 1]
    result = many(items, ANSWERS, on_error="skip")
    assert result.items == [0, 1, 1, 1, 3, 3]
    assert said in result.skipped[2]
    assert "Item 2 was left out" in result.notes[-1]


def test_a_dictionary_of_caches_and_a_series_are_read_in_their_order(pairs):
    pandas = pytest.importorskip("pandas")
    caches = [cache for cache, _ in pairs][:3]
    true = many(caches, ANSWERS, by="layer").values
    series = pandas.Series(caches, index=[2, 0, 1], dtype=object)
    for items in (dict(zip("cba", caches, strict=True)), series):
        assert torch.equal(many(items, ANSWERS, by="layer").values, true)
    with pytest.raises(ResidscopeError, match="A table is not a list of items"):
        many(series.to_frame(), ANSWERS)


@pytest.mark.parametrize(
    ("item", "kinds"),
    [((1, "a"), "(int, str)"), ((1, "a", 2, "b"), "(int, str, int, str)"), ([1, "a"] * 3, "(int, str, int, str, …)")],
)
def test_a_refusal_names_the_types_in_a_wrong_item(item, kinds):
    with pytest.raises(ResidscopeError) as refused:
        many([item], ANSWERS)
    forms = "a cache, (cache, answers) or (cache, answers, options)"
    assert str(refused.value) == f"Item 0: It must be {forms}, but it is {kinds}."


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "it lacks `0_mlp_out`)"),
        (3, "it lacks `0_mlp_out`, `1_mlp_out`, `2_mlp_out`)"),
        (5, "it lacks `0_mlp_out`, `1_mlp_out`, `2_mlp_out` and 2 more)"),
    ],
)
def test_three_of_many_missing_rows_are_named(count, said):
    def frame(*rows):
        return ResultLayout("layer", list(rows), ("component", "batch"), (), [], None, None)

    rows = (Component("mlp_out", layer) for layer in range(count))
    whole = frame(*rows, Component("embed"))
    with pytest.raises(ResidscopeError) as refused:
        whole.check(frame(Component("embed")))
    assert f"rows differ from the rows of the items before it ({said}: it has another model" in str(refused.value)


@pytest.mark.parametrize(
    ("items", "options", "said"),
    [
        ([], {}, "There are no items."),
        (iter([]), {}, "There are no items."),
        ({"hook_embed": 1}, {}, "was given one"),
        (7, {}, "was given int"),
        ("pairs", {"by": "heads"}, '^Item 0: `by="heads"` is not known'),
        ("pairs", {"by": "heads", "on_error": "skip"}, '^Item 0: `by="heads"` is not known'),
        ("caches", {"answers": "nothing", "on_error": "skip"}, "None of 5 items could be attributed. Item 0: "),
        ("caches", {}, "There are no answers"),
        ("caches", {"answers": ["w5"] * 9}, "To give each item its own"),
        ("pairs", {"keep": "all"}, "is not known"),
        ("pairs", {"on_error": "ignore"}, "is not known"),
        ("pairs", {"accelerator": 2}, "was given int"),
    ],
)
def test_a_wrong_call_is_refused(pairs, items, options, said):
    given = {"pairs": pairs, "caches": [cache for cache, _ in pairs]}.get(items) if isinstance(items, str) else items
    with pytest.raises(ResidscopeError, match=said):
        many(given, **options)


def test_prompts_of_different_lengths(model):
    def cut(number, length):
        torch.manual_seed(number)
        return model.run_with_cache(torch.randint(3, tiny.VOCAB, (2, length)))[1]

    items = [cut(0, 7), cut(1, 5)]
    assert torch.equal(many(items, ANSWERS).values[:, 2:], residscope.attribute(items[1], ANSWERS).values)
    for question in ({"position": "all"}, QUESTIONS["source"]):
        with pytest.raises(ResidscopeError, match=r"^Item 1: It has 5 positions, .* have 7"):
            many(items, ANSWERS, **question)


def test_repeated_notes_are_merged(ioi):
    """A note on some items lists the indices of these items."""
    changed = dict(ioi.cache.cache_dict)
    bare = type(ioi.cache)({name: t for name, t in changed.items() if name != "ln_final.hook_scale"}, ioi.model)
    other = type(ioi.cache)(changed | {"hook_embed": changed["hook_embed"] * 1.5}, ioi.model)
    lone = residscope.attribute(other, ioi.answers).notes
    assert lone
    assert residscope.attribute(bare, ioi.answers).notes == []
    notes = many([bare, other, bare, other], ioi.answers, by="layer").notes
    assert [note.partition(": ")[0] for note in notes] == ["2 items (1, 3)"] * len(lone)


def test_a_merged_note_on_padding_names_an_item_if_its_numbers_differ(model):
    def padded(*lengths):
        rows = [[*range(5, 5 + length), *[0] * (7 - length)] for length in lengths]
        return model.run_with_cache(torch.tensor(rows))[1]

    once, longer = padded(7, 3), padded(7, 5)
    [note], [other] = (residscope.attribute(cache, ANSWERS).notes for cache in (once, longer))
    assert "treated as padded" in note
    assert note != other
    assert many([once, once], ANSWERS).notes == [note]
    assert many([once, padded(7), once], ANSWERS).notes == [f"2 items (0, 2): {note}"]
    assert many([once, padded(7), longer], ANSWERS).notes == [f"2 items (0, 2), such as item 0: {note}"]
    notes = {at: [f"{0.1 * at:.1f} of the value is not explained."] for at in (1, 2)}
    facts = {at: SimpleNamespace(notes=own, model="", tokenizer=()) for at, own in notes.items()}
    results = {at: SimpleNamespace(facts=own) for at, own in facts.items()}
    assert notes_of(SimpleNamespace(skipped={}), results) == [
        "2 items (1, 2), such as item 1: 0.1 of the value is not explained."
    ]
    left = [model.run_with_cache(torch.tensor([[0] * n + [5] * (7 - n), range(5, 12)]))[1] for n in (2, 3)]
    found = many(left, residscope.targets.output("L1H0", of=ANSWERS, source=5)).notes
    [shared] = [note for note in found if "begin at different positions" in note]
    assert shared.startswith("2 items (0, 1), such as item 0: One source index")
    assert "source 5 is token 3 of prompt 0, but token 5 of prompt 1" in shared
    fixed = many([once, longer], ANSWERS, position=4).notes
    assert any("Means over prompts include them" in note for note in fixed)
    assert not any("leave this prompt out" in note for note in fixed)


def test_the_spread_is_right_if_the_mean_is_large():
    torch.manual_seed(0)
    values = 1e4 + torch.randn(3, 1000, dtype=torch.float64) * 1e-3
    pieces = [Spread.of(piece, 1) for piece in values.split([1, 7, 292, 700], 1)]
    spread = pieces[0].merged(pieces[1].merged(pieces[2])).merged(pieces[3])
    torch.testing.assert_close(spread.std, values.std(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(spread.mean, values.mean(1), rtol=1e-14, atol=0)


def test_progress_is_shown(pairs, capsys):
    residscope.attribute_many(iter(pairs), total=5)
    assert "5/5" in capsys.readouterr().err
    many(pairs)
    assert capsys.readouterr().err == ""


def test_the_code_of_the_document_runs(model, monkeypatch, tmp_path):
    torch.manual_seed(0)
    prompts, answers = torch.randint(3, tiny.VOCAB, (8, 7)), [(f"w{i}", "w9") for i in range(10, 18)]
    monkeypatch.chdir(tmp_path)

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        many([(model.run_with_cache(prompts[:4])[1], answers[:4]), stop])
    monkeypatch.setattr(sys, "last_value", stopped.value, raising=False)  # as in a notebook
    run = SimpleNamespace(model=model, prompts=prompts, answers=answers)
    names = pages.run_page("py_backend/docs/many.md", run)
    close(names["result"].values, residscope.attribute(model.run_with_cache(prompts)[1], answers).values)


def test_a_file_says_what_was_left_out(pairs, tmp_path):
    from residscope.many.checkpoint import read

    path = tmp_path / "kept.npz"
    found = many([pairs[0], (pairs[1][0], "no word"), pairs[2]], on_error="skip", resume=path)
    assert list(found.skipped) == [1]
    assert read(path, {}).skipped == found.skipped


@pytest.mark.parametrize("safe", ["file", "partial"])
def test_an_item_that_was_left_out_and_then_succeeds_is_not_listed_as_left_out(pairs, safe, tmp_path):
    def stop():
        raise KeyboardInterrupt

    path = tmp_path / "kept.npz" if safe == "file" else None
    with pytest.raises(KeyboardInterrupt) as stopped:
        many([pairs[0], (pairs[1][0], "no word"), stop], on_error="skip", resume=path)
    assert list(stopped.value.partial.skipped) == [1]
    found = many(pairs[:3], on_error="skip", resume=path or stopped.value.partial)
    assert (len(set(found.items)), found.skipped) == (3, {})
    assert not any("left out" in note for note in found.notes)


@pytest.fixture
def two(monkeypatch):
    """`attribute_many` in two processes, which run one after the other. The second gets the results of the first."""
    from residscope.many.processes import Processes

    done: list[Any] = []

    def together(_, work):
        done.append(work())
        return list(done)

    def whole(items, **options):
        ranks = [SimpleNamespace(num_processes=2, process_index=rank) for rank in range(2)]
        return [many(items, accelerator=rank, **options) for rank in ranks][-1]

    monkeypatch.setattr(Processes, "together", together)
    return whole


@pytest.mark.parametrize("keep", ["values", "summary"])
def test_the_result_lists_the_items_that_each_process_left_out(pairs, keep, two):
    bad = [(pairs[0][0], "no word"), (pairs[1][0], "nothing"), (pairs[2][0], "none")]
    items = [pairs[0], bad[0], bad[1], pairs[2], pairs[4], bad[2]]
    whole = two(items, on_error="skip", keep=keep)
    alone = many(items, on_error="skip", keep=keep)
    assert whole.items == alone.items == [0, 3, 3, 3, 4, 4]
    assert whole.skipped == alone.skipped
    assert list(whole.skipped) == [1, 2, 5]
    assert "“no·word” is not in this model's vocabulary" in whole.skipped[1]
    assert whole.notes == alone.notes
    close(whole.mean(), alone.mean())
    close(whole.std(), alone.std())


def test_a_resumed_process_that_leaves_out_all_its_items_reports_them(pairs, two):
    items = [pairs[0], (pairs[1][0], "no word"), pairs[2], (pairs[3][0], "nothing")]
    with pytest.raises(ResidscopeError) as stopped:
        many(items)
    whole = two(items, on_error="skip", resume=stopped.value.partial)  # only the second process has bad items
    assert (whole.items, list(whole.skipped)) == ([0, 2, 2, 2], [1, 3])


@pytest.fixture
def at_once(monkeypatch):
    """`attribute_many` in two processes, which are threads here. They wait for each other, as in `gather_object`."""
    from accelerate import utils

    meeting, own, gathered = threading.Barrier(2, timeout=30), threading.local(), [[], []]

    def gather_object(objects):
        gathered[own.rank] = objects
        meeting.wait()
        every = [*gathered[0], *gathered[1]]
        meeting.wait()  # only then may the next call write
        return every

    def process(rank, ends, items, options):
        own.rank = rank
        accelerator = SimpleNamespace(num_processes=2, process_index=rank)
        try:
            ends[rank] = many(items[rank::2], accelerator=accelerator, split=False, **options)
        except BaseException as error:
            ends[rank] = error

    def call(items, **options):
        ends: list[Any] = [None, None]
        threads = [threading.Thread(target=process, args=(rank, ends, items, options)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        return ends

    monkeypatch.setattr(utils, "gather_object", gather_object)
    return call


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_if_one_process_is_interrupted_all_raise_and_none_waits(pairs, kind, at_once):
    def ends():
        raise kind

    items = [pairs[0], pairs[1], pairs[2], ends]
    other, interrupted = at_once(items)
    assert type(interrupted) is kind
    assert isinstance(other, ResidscopeError)
    assert str(other) == f"Process 1 of 2 failed. {kind.__name__}"
    alone = many(pairs[:3])
    for error, wanted in ((other, [0, 2]), (interrupted, [1])):
        assert sorted(set(error.partial.items)) == wanted
        close(error.partial.mean(), alone.values[:, [item in wanted for item in alone.items]].mean(1))
    assert [one.items for one in at_once(pairs[:4])] == [many(pairs[:4]).items] * 2


def test_if_the_joined_results_cannot_be_saved_all_processes_have_them(pairs, at_once, tmp_path, monkeypatch):
    from residscope.many import engine

    save = engine.Checkpoint.save

    def full(self, accumulator):
        if self.path == tmp_path / "kept.npz":
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, accumulator)

    monkeypatch.setattr(engine.Checkpoint, "save", full)
    first, second = at_once(pairs[:4], resume=tmp_path / "kept.npz")
    assert isinstance(first, OSError)
    assert isinstance(second, ResidscopeError)
    for error in (first, second):
        close(error.partial.values, many(pairs[:4]).values)


def test_an_error_in_one_of_several_processes_keeps_nothing_in_memory(monkeypatch):
    from residscope.many.processes import Processes

    monkeypatch.setattr("accelerate.utils.gather_object", lambda outcomes: outcomes)
    kept = torch.zeros(1)
    alive = weakref.ref(kept)

    def work(given=kept):
        raise ResidscopeError("mine", f"{given}")

    del kept
    gc.collect()
    gc.disable()  # the error must not be in a reference cycle with the frames of its traceback
    try:
        with suppress(ResidscopeError):
            Processes(SimpleNamespace(num_processes=2, process_index=0)).together(work)
        del work
        assert alive() is None
    finally:
        gc.enable()


def test_two_processes(model, tmp_path):
    """`accelerate`'s launcher starts two processes on the CPU. (`--multi_gpu` is its option for several processes.)"""
    options = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
    command = [sys.executable, "-m", "accelerate.commands.launch", *options.split(), "--main_process_port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launched = subprocess.run(
        [*command, many_worker.__file__, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert launched.returncode == 0, launched.stderr[-4000:]

    items = [many_worker.item(model, number) for number in range(many_worker.COUNT)]
    whole, summary = many(items), many(items, by="neuron", keep="summary")
    effects = residscope.ablate_many(items, progress=False)
    for rank in range(2):
        found = json.loads((tmp_path / f"found-{rank}.json").read_text())
        assert found["processes"] == 2
        assert found["made"] == [[0, 2, 4], [1, 3]][rank]  # each process makes only its own items
        assert found["items"] == whole.items
        assert found["same"] == [True, True, True]
        assert found["error"].endswith("RuntimeError: the tokenizer is gone")  # both processes raise, and neither waits
        interrupt = ["ResidscopeError: Process 1 of 2 failed. KeyboardInterrupt", "KeyboardInterrupt: "]
        assert found["interrupt"] == [interrupt[rank], [[0, 2], [1]][rank]]
        assert found["left"] == ["kept.process-0-of-2.npz", "kept.process-1-of-2.npz"]
        assert found["made_again"] == [[], [3]][rank]
        tensors = torch.load(tmp_path / f"tensors-{rank}.pt")
        close(tensors["values"], whole.values)
        close(tensors["measured"], whole.measured)
        close(tensors["mean"], summary.mean())
        close(tensors["std"], summary.std())
        close(tensors["total"], effects.total)
        close(tensors["sem"], effects.sem("indirect"))
    assert sorted(file.name for file in Path(tmp_path).glob("kept*")) == ["kept.npz"]
    # A single process can resume the results of several processes.
    alone = many([*[lambda: pytest.fail("an item was made")] * many_worker.COUNT], resume=tmp_path / "kept.npz")
    close(alone.values, whole.values)
