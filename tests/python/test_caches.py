"""All kinds of caches: cut, filtered, rounded, saved, on another device, with gradients, without token ids."""

from __future__ import annotations

import copy

import numpy
import pytest
import torch
from transformer_lens import ActivationCache

import residscope
from residscope import ResidscopeError
from residscope.cache.finite import check_finite
from residscope.cache.view import CacheView
from residscope.session.cache_summary import common_facts
from tests.support import tiny

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
WAYS = [("head", {}), ("layer", {}), ("accumulated", {}), ("neuron", {}), ("source", {"heads": ["1.1", "2.0"]})]


@pytest.fixture(scope="module")
def llama():
    return tiny.boot("llama")


@pytest.fixture(scope="module")
def run(llama):
    return tiny.run(llama)


@pytest.mark.parametrize(("by", "options"), WAYS, ids=[by for by, _ in WAYS])
def test_a_cache_without_batch_dimension_is_one_prompt(llama, run, by, options):
    tokens, _, cache = run
    _, alone = llama.run_with_cache(tokens[1], remove_batch_dim=True)
    expected = residscope.attribute(cache, ANSWERS, by=by, **options)
    result = residscope.attribute(alone, (7, 8), by=by, **options)
    assert result.values.shape == (*expected.values.shape[:-1], 1)
    torch.testing.assert_close(result.values[..., 0], expected.values[..., 1], atol=1e-5, rtol=1e-4)
    assert result.unexplained.abs().max() <= result.tolerance


@pytest.mark.parametrize(("cut", "kept"), [(-1, [6]), (3, [3]), (slice(2, 5), [2, 3, 4]), ([1, 4], [1, 4])], ids=str)
@pytest.mark.parametrize(("by", "options"), WAYS[:4], ids=[by for by, _ in WAYS[:4]])
def test_a_cut_cache_is_read_at_the_positions_it_has(llama, run, cut, kept, by, options):
    tokens, _, cache = run
    _, some = llama.run_with_cache(tokens, pos_slice=cut)
    whole = residscope.attribute(cache, ANSWERS, by=by, position="all", **options)
    result = residscope.attribute(some, ANSWERS, by=by, position="all", **options)
    torch.testing.assert_close(result.values, whole.values[..., kept], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(CacheView(some).tokens, tokens[:, kept])
    assert any("pos_slice" in note and f"{len(kept)} of the prompt's 7 positions" in note for note in result.notes)
    with pytest.raises(ResidscopeError, match="pos_slice") as error:
        residscope.attribute(some, ANSWERS, by="source", heads="1.1")
    assert error.value.code == "pos-slice"


@pytest.mark.parametrize(
    ("by", "options", "needed", "measured"),
    [
        ("head", {}, ["hook_z", "hook_embed", "hook_mlp_out", "ln_final.hook_scale", "unembed.hook_out"], True),
        ("head", {}, ["hook_z", "hook_embed", "hook_mlp_out", "ln_final.hook_scale"], False),
        ("layer", {}, ["hook_attn_out", "hook_mlp_out", "hook_embed", "hook_resid_post"], True),
        ("accumulated", {}, ["hook_resid_pre", "hook_resid_post", "hook_resid_mid"], True),
        ("neuron", {"layers": [0, 2]}, ["hook_post", "hook_attn_out", "hook_mlp_out", "hook_embed", "scale"], False),
        ("source", {"heads": "1.1"}, ["hook_v", "hook_pattern", "hook_z", "ln_final.hook_scale"], True),
    ],
)  # fmt: skip
def test_a_filtered_cache_needs_only_some_activations_and_missing_ones_are_named(
    llama, run, by, options, needed, measured
):
    tokens, _, cache = run
    expected = residscope.attribute(cache, ANSWERS, by=by, **options)
    _, some = llama.run_with_cache(tokens, names_filter=lambda name: name.endswith(tuple(needed)))
    result = residscope.attribute(some, ANSWERS, by=by, **options)
    torch.testing.assert_close(result.values, expected.values, atol=1e-5, rtol=1e-4)
    assert bool(result.measured.isfinite().all()) is measured
    if by in ("layer", "accumulated"):  # the remaining rows are still computed (see test_partial.py)
        return
    _, less = llama.run_with_cache(tokens, names_filter=lambda name: name.endswith((*needed[1:], "hook_q")))
    with pytest.raises(ResidscopeError, match=needed[0]) as error:
        residscope.attribute(less, ANSWERS, by=by, **options)
    assert error.value.code == "missing-activation"


def test_gradients_autocast_and_inference_mode_around_the_call_change_no_value(llama, run):
    _, _, cache = run
    with torch.enable_grad():
        tensors = {n: t.clone().requires_grad_() * 1 if t.is_floating_point() else t for n, t in cache.items()}
    live = ActivationCache(tensors, llama)
    for by, options in WAYS:
        expected = residscope.attribute(cache, ANSWERS, by=by, **options)
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.enable_grad():
            result = residscope.attribute(live, ANSWERS, by=by, **options)
            assert torch.is_autocast_enabled("cpu")
            assert torch.is_grad_enabled()
        assert not result.values.requires_grad
        torch.testing.assert_close(result.values, expected.values)
        with torch.inference_mode():
            torch.testing.assert_close(residscope.attribute(live, ANSWERS, by=by, **options).values, expected.values)


def test_a_cache_made_under_autocast_is_summed_in_float32_and_judged_by_its_coarsest_precision(llama, run):
    tokens, _, cache = run
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, mixed = llama.run_with_cache(tokens)
    assert {t.dtype for t in mixed.values() if t.is_floating_point()} == {torch.float32, torch.bfloat16}
    for by, options in WAYS:
        result = residscope.attribute(mixed, ANSWERS, by=by, **options)
        assert result.values.dtype == torch.float32
        assert result.unexplained.abs().max() <= result.tolerance < 0.2
        exact = residscope.attribute(cache, ANSWERS, by=by, **options).values
        assert (result.values - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("by", ["head", "layer", "accumulated"])
def test_a_stream_that_is_not_finite_is_refused_although_every_row_is_finite(by):
    """Rows are compared up to a tolerance that is computed from the stream: it would be infinite."""
    model = tiny.boot("native")
    held = {name: tensor.clone() for name, tensor in tiny.run(model)[2].cache_dict.items()}
    held["blocks.2.hook_resid_post"][1, -1, 3] = float("inf")
    with pytest.raises(ResidscopeError, match=r"infinity: `blocks\.2\.hook_resid_post` \(prompt 1, position 6\)"):
        residscope.attribute(ActivationCache(held, model), ANSWERS, by=by)


@pytest.mark.parametrize(
    ("family", "name", "place", "said"),
    [
        ("llama", "attn.hook_pattern", (0, 3, 6, 2), "prompt 0, head 3, destination 6, source 2"),
        ("llama", "attn.hook_attn_scores", (2, 3, 6, 2), "prompt 2, head 3, destination 6, source 2"),
        ("llama", "attn.hook_z", (2, 3, 1, 5), "prompt 2, position 3"),
        ("qwen3_next", "attn.q_norm.hook_in", (1, 3, 5, 0), "prompt 1, head 3, position 5"),
        ("gpt_oss", "mlp.router.hook_in", (12, 3), "prompt 1, position 5"),
        ("llama", "attn.hook_cos", (0, 3, 1), r"index \[0, 3, 1\]"),
    ],
)
def test_the_place_of_a_value_that_is_not_finite_is_named_by_its_axes(family, name, place, said):
    model = tiny.boot(family)
    held = dict(tiny.run(model)[2].items())
    held[f"blocks.1.{name}"] = held[f"blocks.1.{name}"].clone()
    held[f"blocks.1.{name}"][place] = float("nan")
    with pytest.raises(ResidscopeError, match=rf"`blocks\.1\.{name}` \({said}\)"):
        check_finite(CacheView(held, model), torch.tensor(float("nan")))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_half_precision_differs_only_by_its_rounding_and_never_overflows(family, dtype):
    """Expected: a model in float64 with the same rounded weights. `docs/precision.md` lists measured differences."""
    half, exact = tiny.boot(family).to(dtype), tiny.boot(family).to(dtype).to(torch.float64)
    tokens, _, cache = tiny.run(half)
    truth = exact.run_with_cache(tokens)[1]
    huge = {n: t * 2.0**12 if n == "blocks.1.attn.hook_z" else t for n, t in cache.items()}  # z @ W_O would overflow
    del huge["blocks.1.hook_attn_out"]  # it would not fit the changed z
    eps = torch.finfo(dtype).eps
    for by, options in WAYS:
        result = residscope.attribute(cache, ANSWERS, by=by, **options)
        expected = residscope.attribute(truth, ANSWERS, by=by, **options)
        assert (result.values.dtype, expected.values.dtype) == (torch.float32, torch.float64)
        size = expected.values.abs().max()
        assert (result.values - expected.values).abs().max() <= 20 * eps * size
        assert result.unexplained.abs().max() <= result.tolerance
        if by in ("head", "source"):
            assert residscope.attribute(huge, ANSWERS, by=by, model=half, **options).values.isfinite().all()


def test_a_cache_on_another_device_than_the_model(llama, run, monkeypatch):
    """The rows stay on the cache's device. The tensors have no values, but each operation checks their devices."""
    from residscope.attribution import components
    from residscope.attribution.model_value import model_value
    from residscope.attribution.readout import Readout
    from residscope.attribution.row_values import rows_of
    from residscope.attribution.sources import sources
    from residscope.attribution.targets import Targets
    from residscope.cache import positions
    from residscope.cache.structure import Structure

    monkeypatch.setattr("residscope.cache.layout.unreadable_kind", lambda _: None)  # it refuses tensors without values
    _, _, cache = run
    there = {n: t.to("meta") for n, t in cache.items() if "ln1." not in n}
    with torch.no_grad():
        view = CacheView(there, model=llama, tokens=torch.zeros(3, 7, dtype=torch.long))
        targets = Targets.of(view)
        target = targets.resolve((5, [7, 8]))
        structure = Structure(view)
        plans = [
            components.accumulated(structure, recomputed=True),
            components.layers(structure),
            components.heads(structure),
            components.neurons(structure, [0, 1, 2]),
        ]
        for position in ("all", 3):
            readout = Readout(view, positions.resolve(view, position), *targets.functional(target))
            rows = [
                *(rows_of(readout, plan).values for plan in plans),
                *sources(readout, [(1, 1)]),
                model_value(readout, targets, target, None).value,
            ]
            assert {row.device.type for row in rows} == {"meta"}


@pytest.mark.parametrize("how", ["cache", "dictionary"])
def test_a_saved_cache_is_read_again_with_the_model_given(llama, run, tmp_path, how):
    _, _, cache = run
    path = tmp_path / "cache.pt"
    torch.save(dict(cache.items()) if how == "dictionary" else ActivationCache(cache.cache_dict, None), path)
    loaded = torch.load(path, weights_only=how == "dictionary")
    for by, options in WAYS:
        result = residscope.attribute(loaded, ANSWERS, by=by, model=llama, **options)
        torch.testing.assert_close(result.values, residscope.attribute(cache, ANSWERS, by=by, **options).values)
    with pytest.raises(ResidscopeError, match="model=") as error:
        residscope.attribute(loaded, ANSWERS)
    assert error.value.code == "no-model"


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("compatible", [False, True], ids=["raw", "compatible"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_token_ids_follow_from_the_embeddings_or_are_unknown(family, compatible, dtype):
    model = tiny.boot(family, compatible=compatible)
    tokens, _, cache = tiny.run(model)
    without = {n: t.to(dtype) for n, t in cache.items() if n != "embed.hook_in"}
    view = CacheView(without, model=model)
    if family == "gemma2":  # its model multiplies the embeddings by a factor
        assert view.tokens is None
        return
    torch.testing.assert_close(view.tokens, tokens)
    without["hook_embed"] = without["hook_embed"].clone()
    without["hook_embed"][0, 3, 5] *= 1.5
    assert CacheView(without, model=model).tokens is None  # one value differs, so no ids are guessed


GATED = ["qwen3_next", "qwen3_5_text", "afmoe", "laguna"]


@pytest.mark.parametrize("family", GATED)
def test_the_gate_of_a_head_is_the_models_own_and_a_changed_output_is_not_explained_away(family):
    model = tiny.boot(family)
    _, _, cache = tiny.run(model)
    options = {"by": "source", "heads": ["1.0", "1.1"], "position": "all"}
    exact = residscope.attribute(cache, ANSWERS, **options)
    assert exact.unexplained.abs().max() <= exact.tolerance
    rounded = {n: t.bfloat16() if t.is_floating_point() else t for n, t in cache.items()}
    half = residscope.attribute(rounded, ANSWERS, model=model, **options)
    assert (half.values - exact.values).abs().max() <= 0.05 * exact.values.abs().max()
    noisy = {n: t + torch.randn_like(t) if n == "blocks.1.attn.hook_z" else t for n, t in cache.items()}
    del noisy["blocks.1.hook_attn_out"]
    patched = residscope.attribute(noisy, ANSWERS, model=model, **options)
    assert patched.unexplained.abs().max() > patched.tolerance
    assert any("is not pattern @ v" in note for note in patched.notes)


def hooked(model, tokens, name, change):
    """Return logits and cache of a run with a hook."""
    with torch.no_grad(), model.hooks(fwd_hooks=[(name, lambda t, hook: change(t))]):  # noqa: ARG005 (called by name)
        return model.run_with_cache(tokens)


def test_heads_of_a_layer_whose_output_a_hook_changed_are_refused(llama, run):
    _, cache = hooked(llama, run[0], "blocks.1.hook_attn_out", torch.zeros_like)
    with pytest.raises(ResidscopeError, match="a hook changed it"):
        residscope.attribute(cache, ANSWERS, by="source", heads="1.0")
    result = residscope.attribute(cache, ANSWERS)
    assert not any(label.startswith("L1H") for label in result.labels)
    assert result.values[result.labels.index("1_attn_out")].abs().max() == 0
    assert result.unexplained.abs().max() <= result.tolerance
    assert residscope.attribute(cache, ANSWERS, by="source", heads="0.0").unexplained.abs().max() < 1e-5


@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_a_vector_that_a_hook_adds_to_the_stream_is_found_in_its_layer(llama, run, size):
    nudge = size * torch.randn(24, generator=torch.Generator().manual_seed(0))
    logits, cache = hooked(llama, run[0], "blocks.1.hook_resid_post", lambda t: t + nudge)
    result = residscope.attribute(cache, ANSWERS, by="layer", logits=logits)
    assert any("layer 1" in note for note in result.notes)


def test_without_ids_the_last_position_is_assumed_with_a_note(llama, run):
    _, _, cache = run
    blind = {n: t for n, t in cache.items() if n not in ("embed.hook_in", "hook_embed")}

    def notes(activations, **where):
        return residscope.attribute(activations, 5, by="accumulated", model=llama, **where).notes

    for [note] in (notes(blind), notes(blind, position=6)):  # at position 6, it concerns the mean over prompts
        assert "padding cannot be determined" in note
    assert notes({name: tensor[:1] for name, tensor in blind.items()}, position=6) == []


def test_layers_with_different_numbers_of_heads():
    model = tiny.boot("laguna-heads")
    _, _, cache = tiny.run(model)
    result = residscope.attribute(cache, ANSWERS)
    for row, label in enumerate(result.labels[: result.parts]):
        layer, head = map(int, label[1:].split("H"))
        torch.testing.assert_close(result.grid[layer, head], result.values[row])
    assert int(result.grid.isnan().any(-1).sum()) == result.grid[..., 0].numel() - result.parts
    with pytest.raises(ResidscopeError, match="has only 2 heads"):
        residscope.attribute(cache, ANSWERS, by="source", heads="0.3")


def test_the_default_dtype_is_the_users_own(llama, run):
    _, _, cache = run
    blind = {n: t for n, t in cache.items() if n != "embed.hook_in"}
    expected = {by: residscope.attribute(cache, ANSWERS, by=by, **options).values for by, options in WAYS}
    torch.set_default_dtype(torch.bfloat16)
    try:
        for by, options in WAYS:
            torch.testing.assert_close(
                residscope.attribute(blind, ANSWERS, by=by, model=llama, **options).values, expected[by]
            )
        assert torch.get_default_dtype() == torch.bfloat16
    finally:
        torch.set_default_dtype(torch.float32)


# --- dictionaries with other entries ---------------------------------------------------------------------------------
def _as_dictionary(name: str, plain: dict, tokens: torch.Tensor) -> dict:
    """Return a plain dictionary of activations, in one of the forms in which users have them."""
    return {
        "arrays": lambda: {n: t.numpy() for n, t in plain.items()},
        "read-only arrays": lambda: {n: _read_only(t) for n, t in plain.items()},
        "with a prompt": lambda: {"prompt": "When John and Mary"} | plain,
        "with labels": lambda: {"labels": [1, 2, 3]} | plain,
        "with a number": lambda: {"loss": 1.5} | plain,
        "with a note": lambda: {"note": None} | plain,
        "with tokens": lambda: {"tokens": tokens} | plain,
        "with a loss": lambda: {"loss": torch.tensor(1.5)} | plain,
        "with an empty tensor": lambda: {"hook_extra": torch.empty(0)} | plain,
        "with a tuple": lambda: {"blocks.0.attn.hook_out": (plain["blocks.0.hook_attn_out"], None)} | plain,
        "with a dictionary": lambda: {"more": dict(plain)} | plain,
        "with texts": lambda: {"words": numpy.array(["a", "b"])} | plain,
        "a key that is not a text": lambda: {3: tokens} | plain,
    }[name]()


def _read_only(tensor: torch.Tensor):
    array = tensor.numpy().copy()
    array.flags.writeable = False
    return array


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "name",
    [
        *("arrays", "read-only arrays", "with a prompt", "with labels", "with a number"),
        *("with a note", "with tokens", "with a loss", "with an empty tensor", "with a tuple"),
        *("with a dictionary", "with texts", "a key that is not a text"),
    ],
)
def test_a_dictionary_may_hold_arrays_and_other_things(name):
    model = tiny.boot("llama")
    tokens, logits, cache = tiny.run(model)
    held = _as_dictionary(name, dict(cache.items()), tokens)
    for _ in range(2):  # the second result is memoised
        found = residscope.attribute(held, (5, 6), model=model)
        torch.testing.assert_close(found.measured, logits[:, -1, 5] - logits[:, -1, 6])
        assert found.unexplained.abs().max() < 1e-4
    pattern = cache["blocks.1.attn.hook_pattern"]
    drawn = residscope.attention(held, "1.1", prompt=0, model=model)
    torch.testing.assert_close(drawn.values[0], pattern[0, 1])
    residscope.scores(held, "previous", model=model)
    residscope.token_lens(held, 5, model=model)
    panel = residscope.inspect(held, model=model, answers=(5, 6), show=False)
    for ask in ({"kind": "describe"}, {"kind": "attribute", "by": "head", "target": panel.wire_target}):
        answered, _ = panel._service.answer({"id": "1", "ask": ask})
        assert answered.get("failure") is None
    panel.close()


@pytest.mark.parametrize("value", [None, "text", (torch.zeros(3), None), 1.5, [1.0]])
def test_a_needed_entry_that_is_not_a_tensor_is_named(value):
    model = tiny.boot("llama")
    held = dict(tiny.run(model)[2].items())
    held["blocks.1.attn.hook_pattern"] = value
    with pytest.raises(residscope.ResidscopeError, match=f"hook_pattern` is a {type(value).__name__} in this cache"):
        residscope.attention(held, "1.1", model=model)
    with pytest.raises(residscope.ResidscopeError, match="holds no activations"):
        residscope.attribute({"prompt": value if not isinstance(value, tuple) else "text"}, 5, model=model)


@pytest.mark.parametrize(
    "kept",
    [
        ("attn.hook_z",),
        ("attn.hook_pattern", "attn.hook_z", "attn.hook_v", "attn.v.hook_out", "ln_final.hook_scale"),
        ("hook_scale", "attn.hook_z"),
        ("hook_mlp_out",),
        ("attn.hook_pattern", "hook_embed", "hook_scale"),
    ],
)
def test_a_filtered_dictionary_without_a_batch_axis_is_one_prompt(kept):
    model = tiny.boot("llama")
    tokens, _, whole = tiny.run(model)
    with torch.no_grad():
        _, single = model.run_with_cache(tokens[:1], remove_batch_dim=True)
    held = {name: tensor for name, tensor in single.items() if name.endswith(kept)}
    told = common_facts(CacheView(held, model=model))
    assert (told["prompts"], told["positions"]) == (1, 7)
    if "attn.hook_pattern" in kept:
        drawn = residscope.attention(held, "1.1", model=model).values[0]
        torch.testing.assert_close(drawn, whole["blocks.1.attn.hook_pattern"][0, 1], atol=1e-6, rtol=1e-5)
        # The share of attention to the previous token, by hand.
        before = drawn.diagonal(-1).sum() / drawn.sum()
        found = residscope.scores(held, "previous", model=model).values[1, 1]
        torch.testing.assert_close(found, before, atol=1e-6, rtol=1e-5)


CHANGES = {
    "all on meta": ("", lambda tensor: tensor.to("meta"), "on the `meta` device, which holds no numbers"),
    "meta z": ("hook_z", lambda tensor: tensor.to("meta"), "`blocks.0.attn.hook_z` is a tensor on the `meta` device"),
    "sparse z": ("hook_z", lambda tensor: tensor.to_sparse(), "`blocks.0.attn.hook_z` is a sparse tensor"),
    "no prompts": ("", lambda tensor: tensor[:0], "holds 0 prompts"),
    "two lengths": ("1.attn.hook_pattern", lambda tensor: tensor[:, :, :5, :5], "has 5 positions"),
    "no axes": ("1.hook_resid_post", lambda tensor: tensor.sum(), "too few or too many axes"),
    "two widths": ("1.hook_resid_post", lambda tensor: tensor[..., :20], "they are from different models"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_activations_that_cannot_be_read_are_refused_in_a_sentence(llama, change):
    which, make, said = CHANGES[change]
    cache = tiny.run(llama)[2]
    cache.cache_dict = {n: make(t) if which in n else t for n, t in cache.cache_dict.items()}
    for ask in (
        lambda: residscope.attribute(cache, (5, 6)),
        lambda: residscope.attribute(cache, (5, 6), by="source", heads="1.1"),
        lambda: residscope.attention(cache, "1.1"),
        lambda: residscope.scores(cache, "first"),
        lambda: residscope.token_lens(cache, 5),
    ):
        with pytest.raises(ResidscopeError) as error:
            ask()
        assert said in str(error.value)


META = torch.ones(2, 3, dtype=torch.long, device="meta")


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda cache: residscope.attribute(cache, 5, logits=META.float()), "`meta` device"),
        (lambda cache: residscope.attribute(cache, 5, tokens=META), "`meta` device"),
        (lambda cache: residscope.attribute(cache, 5, tokens=torch.eye(2).to_sparse()), "a sparse tensor"),
        (lambda cache: residscope.attribute(cache, 5, attention_mask=META), "`meta` device"),
        (lambda cache: residscope.attribute(cache, META[:, 0]), "`meta` device"),
        (lambda cache: residscope.attribute(cache, torch.empty(24, device="meta")), "`meta` device"),
        (lambda cache: residscope.attribute(cache, 5, position=META[:, 0]), "is not a position"),
        (lambda cache: residscope.attribute(cache, 5, position=True), "`position=True` is not a position"),
        (lambda cache: residscope.token_lens(cache, 5, k=2.5), "`k=2.5` is not a number of tokens"),
        (lambda cache: residscope.token_lens(cache, 5, points=3), "`points=3` is not a list of points"),
        (lambda cache: residscope.scores(cache, ["first"]), "There is no score"),
        (lambda cache: residscope.attention(cache, "1.1", weighting=["value"]), "is not known"),
    ],
)
def test_arguments_that_cannot_be_read_are_refused_in_a_sentence(llama, ask, said):
    with pytest.raises(ResidscopeError) as error:
        ask(tiny.run(llama)[2])
    assert said in str(error.value)


class Raises:
    """A tokenizer that raises at every access."""

    def __getattr__(self, name):
        raise RuntimeError(name)


class PutsBOS:
    """A tokenizer that adds BOS to every text, and has NumPy ids."""

    pad_token_id, bos_token_id = numpy.int64(3), 1

    def encode(self, text):
        return [1, *(int(word[1:]) for word in text.split())]

    def decode(self, ids):
        return " ".join(f"w{id}" for id in ids)


def test_tokenizers_that_a_user_wrote():
    model = copy.deepcopy(tiny.boot("llama"))
    rows = torch.tensor([[1, 5, 6, 7, 3, 3], [1, 5, 6, 7, 8, 9]])
    with torch.no_grad():
        logits, cache = model.run_with_cache(rows)
    model.__dict__["_tokenizer"] = Raises()
    torch.testing.assert_close(
        residscope.attribute(cache, (20, 21), position=3, model=model).measured[0], logits[0, 3, 20] - logits[0, 3, 21]
    )
    model._tokenizer = PutsBOS()
    found = residscope.attribute(cache, ("w20", "w21"), model=model)
    torch.testing.assert_close(found.measured[0], logits[0, 3, 20] - logits[0, 3, 21])
    assert "2 trailing `w3` were left out" in found.notes[0]


def test_tokens_that_are_not_the_caches_own_are_noted(run):
    tokens, _, cache = run
    assert residscope.attribute(cache, 5, tokens=tokens).notes == []
    other = tokens.clone()
    other[0, 2] += 1
    for found in (residscope.attribute(cache, 5, tokens=other), residscope.scores(cache, "induction", tokens=other)):
        assert any("differs from the token ids in this cache" in note for note in found.notes)
