"""`lens=`: values of a tuned lens, a Jacobian lens or own maps equal float64 by hand. Maps that do not fit are refused.

Views and exported code call the values of mapped streams "transported".
"""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import residscope
from residscope import LensMaps, ResidscopeError
from tests.support import tiny
from tests.support.brute import logit_scale

FAMILIES = ["gpt2", "gpt_neox", "llama", "cohere", "granite", "gemma2-cap-5", "olmo2", "gemma3_text", "native"]
ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
WIDTH = 24


def made(count: int, *, bias: bool = True, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Return pairs of a random matrix near the identity and a bias (or None)."""
    own = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        A = torch.eye(WIDTH) + 0.2 * torch.randn(WIDTH, WIDTH, generator=own)
        found.append((A, 0.3 * torch.randn(WIDTH, generator=own) if bias else None))
    return found


def linear(A: torch.Tensor, b: torch.Tensor | None, *, less: bool) -> torch.nn.Linear:
    """Return a module that computes A h + b. With `less`, it is a translator as in tuned-lens: without the term h.

    The output of a translator is added to the stream h, so its matrix is A − 1.
    """
    module = torch.nn.Linear(WIDTH, WIDTH, bias=b is not None)
    with torch.no_grad():
        module.weight.copy_(A - torch.eye(WIDTH) if less else A)
        if b is not None:
            module.bias.copy_(b)
    return module


def read(cache, point: str, layers: int) -> torch.Tensor:
    """Return the stream at a point in float64."""
    if point == "final_post":
        return cache[f"blocks.{layers - 1}.hook_resid_post"].double()
    return cache[f"blocks.{point[0]}.hook_resid_{point[2:]}"].double()


def softmaxed(model, logits, cache, stream: torch.Tensor) -> torch.Tensor:
    """Return the probabilities by the model's own norm, unembedding, logit scale and soft-cap, in float64."""
    norm, unembed = (copy.deepcopy(part.original_component).double() for part in (model.ln_final, model.unembed))
    cap = getattr(model.cfg, "output_logits_soft_cap", None) or 0
    with torch.no_grad():
        found = unembed(norm(stream)) * logit_scale(logits, cache)
    return (cap * (found / cap).tanh() if cap > 0 else found).softmax(-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_token_lens_of_mapped_streams_is_the_models_own_readout_in_float64(family):
    model = tiny.boot(family)
    _, logits, cache = tiny.run(model)
    layers, pairs = model.cfg.n_layers, made(4)
    result = residscope.token_lens(cache, ANSWERS, lens=pairs[:layers], k=64)
    assert result.points == [f"{layer}_pre" for layer in range(layers)] + ["final_post"]
    for at, point in enumerate(result.points):
        stream = read(cache, point, layers)
        if at < layers:
            A, b = pairs[at]
            stream = stream @ A.double().T + b.double()
        expected = softmaxed(model, logits, cache, stream).mean(0)
        torch.testing.assert_close(
            result.probabilities[at].double(), expected.gather(-1, result.ids[at]), atol=2e-5, rtol=1e-3
        )
        said = softmaxed(model, logits, cache, stream)[range(3), :, ANSWERS[:, 0]].mean(0)
        torch.testing.assert_close(result.answer_probability[at].double(), said, atol=2e-5, rtol=1e-3)
    assert any(note.startswith("Transported: `lens=` gives A h + b") for note in result.notes)


@pytest.mark.parametrize("family", ["gpt2", "llama", "olmo2", "granite", "native"])
@pytest.mark.parametrize("norm", ["frozen", "recomputed"])
def test_the_logit_lens_of_mapped_streams_is_the_target_in_float64(family, norm):
    model = tiny.boot(family)
    _, logits, cache = tiny.run(model)
    layers, pairs = model.cfg.n_layers, made(3, bias=family != "gpt2")
    module = copy.deepcopy(model.ln_final.original_component).double()
    unembed = copy.deepcopy(model.unembed.original_component).double()
    for position in ("last", "all"):
        result = residscope.attribute(
            cache, ANSWERS, by="accumulated", norm=norm, lens=[linear(*p, less=True) for p in pairs], position=position
        )
        assert result.labels == [f"{layer}_pre" for layer in range(layers)] + ["final_post"]
        final = read(cache, "final_post", layers)
        for at, point in enumerate(result.labels):
            stream = read(cache, point, layers)
            if at < layers:
                stream = stream @ pairs[at][0].double().T + (0 if pairs[at][1] is None else pairs[at][1].double())
            with torch.no_grad():
                if norm == "recomputed":
                    logit = unembed(module(stream))
                else:
                    # With a frozen scale, the norm is affine: (centred) stream / scale × weight + bias.
                    length = cache["ln_final.hook_scale"].double()
                    centred = stream - stream.mean(-1, keepdim=True) if _centres(module) else stream
                    bias = module(torch.zeros_like(final)) * 0 if not hasattr(module, "bias") else module.bias
                    weight = getattr(module, "weight", None)
                    scaled = centred / length * (1 if weight is None else _weight(module))
                    logit = unembed(scaled + (0 if bias is None else bias))
            scale = logit_scale(logits, cache)
            here = logit * scale
            expected = here[range(3), :, ANSWERS[:, 0]] - here[range(3), :, ANSWERS[:, 1]]
            expected = expected[:, -1] if position == "last" else expected
            torch.testing.assert_close((result.values[at] + result.constant).double(), expected, atol=2e-4, rtol=1e-4)
        assert float(result.unexplained.abs().max()) < 1e-3
        assert any("gives h + A h" in note for note in result.notes)


def _centres(module) -> bool:
    x = torch.randn(WIDTH, dtype=torch.float64)
    with torch.no_grad():
        return bool(torch.allclose(module(x), module(x + 3), atol=1e-4))


def _weight(module) -> torch.Tensor:
    """Return the factor of each coordinate. For an RMSNorm it is read from the output: some use 1 + weight."""
    x = torch.ones(WIDTH, dtype=torch.float64)
    if not _centres(module):
        with torch.no_grad():
            return module(x) * x.pow(2).mean().sqrt()
    return module.weight


@pytest.mark.parametrize("side", ["left", "right"])
def test_with_padding_each_prompt_has_the_values_of_a_run_alone(side):
    model = tiny.boot("llama")
    prompts = [[1, 12, 13, 14, 15, 16], [1, 20, 21, 22], [1, 30, 31, 32, 33]]
    width = max(map(len, prompts))
    rows, mask = [], []
    for ids in prompts:
        pad = [0] * (width - len(ids))
        rows.append(pad + ids if side == "left" else ids + pad)
        ones = [1] * len(ids)
        mask.append([0] * len(pad) + ones if side == "left" else ones + [0] * len(pad))
    attention_mask = torch.tensor(mask)
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor(rows), attention_mask=attention_mask)
    lens = made(3)
    together = residscope.attribute(
        cache, 5, by="accumulated", norm="recomputed", lens=lens, attention_mask=attention_mask
    )
    for at, ids in enumerate(prompts):
        with torch.no_grad():
            _, alone = model.run_with_cache(torch.tensor([ids]))
        expected = residscope.attribute(alone, 5, by="accumulated", norm="recomputed", lens=lens)
        torch.testing.assert_close(together.values[:, at], expected.values[:, 0], atol=2e-4, rtol=1e-3)
        end = mask[at].index(0) - 1 if side == "right" and 0 in mask[at] else width - 1
        cells = residscope.token_lens(
            cache, 5, lens=lens, prompt=at, positions=end, attention_mask=attention_mask, k=64
        )
        own = residscope.token_lens(alone, 5, lens=lens, positions=-1, k=64)
        torch.testing.assert_close(cells.answer_probability, own.answer_probability, atol=1e-5, rtol=1e-3)


def test_every_form_of_the_same_maps_gives_the_same_values():
    _, _, cache = tiny.run(tiny.boot("llama"))
    pairs = made(3)
    plain = [A for A, _ in pairs]
    translators = torch.nn.ModuleList([linear(*pair, less=True) for pair in pairs])
    expected = residscope.token_lens(cache, 5, lens=pairs).answer_probability
    without = residscope.token_lens(cache, 5, lens=plain).answer_probability
    forms = {
        "translators": translators,
        "a TunedLens": SimpleNamespace(layer_translators=translators),
        "objects": [SimpleNamespace(weight=A - torch.eye(WIDTH), bias=b) for A, b in pairs],
        "said": LensMaps([linear(*pair, less=False) for pair in pairs], adds=False),
        "added pairs": LensMaps([(A - torch.eye(WIDTH), b) for A, b in pairs], adds=True),
        "a dictionary": dict(enumerate(pairs)),
        "n_layers + 1": [*pairs, None],
        "double": [(A.double(), b.double()) for A, b in pairs],
        "arrays": [(A.numpy(), b.numpy()) for A, b in pairs],
        "a generator": (pair for pair in pairs),
    }
    for name, form in forms.items():
        found = residscope.token_lens(cache, 5, lens=form)
        torch.testing.assert_close(found.answer_probability, expected, atol=1e-5, rtol=1e-4, msg=name)
    stacked = residscope.token_lens(cache, 5, lens=torch.stack(plain))
    torch.testing.assert_close(stacked.answer_probability, without, atol=1e-6, rtol=1e-5)
    half = residscope.token_lens(cache, 5, lens=[A.bfloat16() for A in plain])
    exact = residscope.token_lens(cache, 5, lens=[A.bfloat16().float() for A in plain])
    assert torch.equal(half.answer_probability, exact.answer_probability)


def test_maps_after_each_layer_are_one_point_later():
    _, _, cache = tiny.run(tiny.boot("llama"))
    pairs = made(3)
    after = residscope.token_lens(cache, 5, lens=LensMaps(pairs, at="post"))
    assert after.points == ["1_pre", "2_pre", "final_post"]
    before = residscope.token_lens(cache, 5, lens=[None, *pairs])
    assert torch.equal(after.answer_probability, before.answer_probability[1:])
    assert any("The end of the stream has a map, too" in note for note in after.notes)
    fewer = residscope.token_lens(cache, 5, lens=LensMaps(pairs[:2], at="post"))
    assert fewer.points == after.points
    plain = residscope.token_lens(cache, 5)
    assert torch.equal(fewer.answer_probability[-1], plain.answer_probability[-1])
    some = residscope.token_lens(cache, 5, lens={1: pairs[1]})
    assert some.points == ["1_pre", "final_post"]
    result = residscope.attribute(cache, ANSWERS, by="accumulated", lens=LensMaps(pairs, at="post"))
    assert float(result.unexplained.abs().max()) > 0.01  # the mapped end is not the model's value, and a note says so
    assert any("not the model's own value" in note for note in result.notes)


def test_no_map_leaves_the_stream_as_it_is():
    for family in ("llama", "granite"):
        _, _, cache = tiny.run(tiny.boot(family))
        for norm in ("frozen", "recomputed"):
            plain = residscope.attribute(cache, ANSWERS, by="accumulated", norm=norm)
            same = residscope.attribute(cache, ANSWERS, by="accumulated", norm=norm, lens=[None] * 3)
            kept = [plain.labels.index(name) for name in same.labels]
            torch.testing.assert_close(same.values, plain.values[kept])


def test_every_positions_next_token_is_read_from_the_mapped_stream():
    _, _, cache = tiny.run(tiny.boot("llama"))
    lens = made(3)
    T = residscope.targets.next_token()
    every = residscope.attribute(cache, T, by="accumulated", norm="recomputed", position="all", lens=lens)
    for at in (0, 3, 5):
        one = residscope.attribute(cache, T, by="accumulated", norm="recomputed", position=at, lens=lens)
        torch.testing.assert_close(every.values[..., at], one.values, atol=1e-5, rtol=1e-4)


def test_a_changed_lens_gives_new_values():
    _, _, cache = tiny.run(tiny.boot("llama"))
    lens = [A for A, _ in made(3)]
    first = residscope.token_lens(cache, 5, lens=lens).answer_probability
    other = residscope.attribute(cache, 5, by="accumulated", lens=lens).values
    lens[1].mul_(-1)
    again = residscope.token_lens(cache, 5, lens=lens).answer_probability
    assert not torch.allclose(first[1], again[1])
    assert torch.equal(first[0], again[0])
    assert not torch.allclose(residscope.attribute(cache, 5, by="accumulated", lens=lens).values[1], other[1])


def test_translators_that_are_taken_for_matrices_are_noticed():
    _, _, cache = tiny.run(tiny.boot("llama"))
    final = cache["blocks.2.hook_resid_post"][:, -1]
    # Translators A: at the last tokens, h + A h is exactly the end of the stream.
    lens = []
    for layer in range(3):
        h = cache[f"blocks.{layer}.hook_resid_pre"][:, -1]
        lens.append(((final - h).T @ torch.linalg.pinv(h.T), torch.zeros(WIDTH)))
    wrong = residscope.token_lens(cache, 5, lens=lens)
    [note] = [note for note in wrong.notes if "right convention" in note]
    assert "adds=True" in note
    right = residscope.token_lens(cache, 5, lens=LensMaps(lens, adds=True))
    assert not any("right convention" in note for note in right.notes)
    jacobians = [((final.T @ torch.linalg.pinv(cache[f"blocks.{i}.hook_resid_pre"][:, -1].T)), None) for i in range(3)]
    assert not any("right convention" in note for note in residscope.token_lens(cache, 5, lens=jacobians).notes)
    [note] = [n for n in residscope.token_lens(cache, 5, lens=LensMaps(jacobians, adds=True)).notes if "right con" in n]
    assert "adds=False" in note


def hostile() -> dict[str, tuple[object, str]]:
    good = [A for A, _ in made(3)]
    bad = good[1].clone()
    bad[3, 4] = torch.nan
    return {
        "too few": (good[:2], "has 2 maps"),
        "too many": ([*good, *good], "has 6 maps"),
        "not a list": (good[0], r"`Tensor` of shape \[24, 24\]"),
        "one module": (torch.nn.Linear(WIDTH, WIDTH), "`Linear`"),
        "a text": ("tuned", "`str`"),
        "a number": (3, "`int`"),
        "a wrong matrix": ([good[0], torch.randn(24, 23), None], r"`lens\[1\]` has the shape \[24, 23\]"),
        "a wrong bias": ([(good[0], torch.randn(3)), None, None], r"The bias of `lens\[0\]` has the shape \[3\]"),
        "NaN": ([good[0], bad, None], r"`lens\[1\]` holds NaN"),
        "infinity": ([good[0], None, good[2] * torch.inf], r"`lens\[2\]` holds NaN"),
        "no values": ([torch.empty(24, 24, device="meta"), None, None], "on the `meta` device"),
        "whole numbers": ([torch.eye(24, dtype=torch.int8), None, None], "stored as int8"),
        "texts": (["a", "b", "c"], "is a `str`, not a tensor"),
        "a deeper module": ([torch.nn.Sequential(torch.nn.Linear(24, 24))] * 3, "may compute more"),
        "a norm": ([torch.nn.LayerNorm(24)] * 3, "may compute more"),
        "a triple": ([(good[0], None, None)] * 3, "is a `tuple`, not a tensor"),
        "both": ([good[0], torch.nn.Linear(24, 24), None], "both matrices and objects"),
        "another layer": ({7: good[0]}, "a map for layer 7"),
        "a name": ({"0": good[0]}, "the key '0'"),
        "another place": (LensMaps(good, at="mid"), 'use "pre" or "post"'),
        "one more after": (LensMaps([*good, None], at="post"), "has 4 maps"),
    }


@pytest.mark.parametrize("case", hostile())
def test_maps_that_do_not_fit_are_refused_in_a_sentence(case):
    lens, said = hostile()[case]
    _, _, cache = tiny.run(tiny.boot("llama"))
    for ask in (
        lambda: residscope.token_lens(cache, 5, lens=lens),
        lambda: residscope.attribute(cache, 5, by="accumulated", lens=lens),
    ):
        with pytest.raises(ResidscopeError, match=said) as error:
            ask()
        assert error.value.code == "lens"


def test_a_lens_where_nothing_is_read_at_the_end_is_refused():
    _, _, cache = tiny.run(tiny.boot("llama"))
    lens = made(3)
    with pytest.raises(ResidscopeError, match="only for the logit lens"):
        residscope.attribute(cache, 5, by="head", lens=lens)
    with pytest.raises(ResidscopeError, match="is read at an earlier point"):
        residscope.attribute(cache, residscope.targets.neuron("L1N3"), by="accumulated", lens=lens)
    with pytest.raises(ResidscopeError, match="no map for the point `1_mid`"):
        residscope.token_lens(cache, 5, lens=lens, points=["0_pre", "1_mid"])


def test_nan_in_the_cache_is_not_taken_for_nan_in_the_lens():
    from transformer_lens import ActivationCache

    model = tiny.boot("llama")
    held = dict(tiny.run(model)[2].items())
    odd = held["blocks.1.hook_resid_pre"].clone()
    odd[0, 3] = torch.nan
    cache = ActivationCache(held | {"blocks.1.hook_resid_pre": odd}, model)
    with pytest.raises(ResidscopeError, match=r"`blocks.1.hook_resid_pre` \(prompt 0, position 3\)"):
        residscope.token_lens(cache, 5, lens=made(3))


def test_nothing_of_the_user_changes():
    _, _, cache = tiny.run(tiny.boot("llama"))
    lens = torch.nn.ModuleList([torch.nn.Linear(WIDTH, WIDTH) for _ in range(3)])
    before, state = copy.deepcopy(lens.state_dict()), np.random.get_state()[1].tolist()
    random = torch.random.get_rng_state()
    names = list(cache.keys())
    residscope.token_lens(cache, 5, lens=lens)
    residscope.attribute(cache, 5, by="accumulated", lens=lens)
    assert all(torch.equal(value, before[name]) for name, value in lens.state_dict().items())
    assert all(part.grad is None and part.requires_grad for part in lens.parameters())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert np.random.get_state()[1].tolist() == state
    assert list(cache.keys()) == names


def test_a_panel_starts_with_the_lens_and_answers_with_its_values():
    _, _, cache = tiny.run(tiny.boot("llama"))
    lens = LensMaps(made(3), name="mine")
    panel = residscope.inspect(cache, (5, 6), prompt=0, lens=lens, show=False)
    assert panel.transport == "transported"
    assert panel.facts["lens"] == {"name": "mine", "formula": "A h + b"}
    ask = {"kind": "attribute", "by": "accumulated", "target": panel.wire_target, "prompt": 0, "norm": "recomputed"}
    for transport, given in (("transported", lens), ("plain", None)):
        answer, buffers = panel._service.answer({"id": "1", "ask": ask | {"transport": transport}})
        expected = residscope.attribute(cache, (5, 6), by="accumulated", norm="recomputed", lens=given)
        assert np.allclose(np.frombuffer(buffers[0], np.float32), expected.values[:, 0].numpy(), atol=1e-6)
        assert any("Transported" in note for note in answer["reply"]["notes"]) == (given is not None)
        tile = {"kind": "token-lens", "points": ["1_pre", "final_post"], "start": 2, "stop": 5, "k": 3, "prompt": 0}
        tile |= {"target": panel.wire_target, "transport": transport}
        cells = panel._service.answer({"id": "2", "ask": tile})[0]["reply"]["cells"]
        found = residscope.token_lens(
            cache, (5, 6), prompt=0, points=["1_pre", "final_post"], positions=range(2, 5), k=3, lens=given
        )
        for row, values in zip(cells, found.answer_probability.tolist(), strict=True):
            assert [cell["answer"] for cell in row] == pytest.approx(values)
        rows = {"kind": "positions", "by": "accumulated", "target": panel.wire_target, "prompt": 0}
        _, buffers = panel._service.answer({"id": "3", "ask": rows | {"transport": transport}})
        every = residscope.attribute(cache, (5, 6), by="accumulated", position="all", lens=given)
        assert np.allclose(np.frombuffer(buffers[0], np.float32), every.values[:, 0].flatten().numpy(), atol=1e-5)


def test_the_code_of_a_transported_picture_gives_its_values():
    from residscope.serving.service import Service

    _, _, cache = tiny.run(tiny.boot("llama"))
    lens = made(3)
    service = Service(cache, lens=lens)
    target = {"contrasts": [{"answer": [{"id": 5, "text": "w5"}], "distractor": [{"id": 6, "text": "w6"}]}]}
    selected = {"target": target, "prompt": 0, "transport": "transported"}
    for picture, more in (("lens", {}), ("token-lens", {"tab": "token-lens"}), ("positions", {"by": "accumulated"})):
        ask = {"kind": "code", "picture": picture, "shown": selected | more}
        code = service.answer({"id": "1", "ask": ask})[0]["reply"]["code"]
        assert "lens=" in code, picture
        names = {"cache": cache, "lens": lens, "residscope": residscope}
        exec(code.replace("\nfigure\n", "\n"), names)
        plain = service.answer({"id": "2", "ask": ask | {"shown": selected | more | {"transport": "plain"}}})
        assert "lens=" not in plain[0]["reply"]["code"]
        if picture == "token-lens":
            expected = residscope.token_lens(cache, prompt=0, lens=lens).probabilities
        else:
            place = "last" if picture == "lens" else "all"
            whole = residscope.attribute(cache, ("w5", "w6"), by="accumulated", lens=lens, position=place)
            expected = (whole.values + whole.constant)[:, 0]
        torch.testing.assert_close(names["values"], expected)


def test_without_a_lens_a_view_that_asks_for_one_gets_a_sentence():
    _, _, cache = tiny.run(tiny.boot("llama"))
    panel = residscope.inspect(cache, (5, 6), show=False)
    assert (panel.transport, panel.facts["lens"]) == ("plain", None)
    with pytest.raises(ResidscopeError, match="No lens was given"):
        panel.transport = "transported"
    ask = {"kind": "attribute", "by": "accumulated", "target": panel.wire_target, "transport": "transported"}
    assert "No lens was given" in panel._service.answer({"id": "1", "ask": ask})[0]["failure"]["message"]
    with pytest.raises(ResidscopeError, match="has 2 maps"):
        residscope.inspect(cache, (5, 6), lens=made(2), show=False)


def test_another_cache_in_the_panel_is_read_by_the_same_lens():
    model = tiny.boot("llama")
    _, _, cache = tiny.run(model)
    lens = made(3)
    panel = residscope.inspect(cache, (5, 6), lens=lens, show=False)
    with torch.no_grad():
        _, other = model.run_with_cache(torch.tensor([[1, 4, 9, 16]]))
    panel.cache = other
    assert panel.facts["lens"] is not None
    ask = {"kind": "attribute", "by": "accumulated", "target": panel.wire_target, "transport": "transported"}
    _, buffers = panel._service.answer({"id": "1", "ask": ask})
    expected = residscope.attribute(other, (5, 6), by="accumulated", lens=lens).values[:, 0]
    assert np.allclose(np.frombuffer(buffers[0], np.float32), expected.numpy(), atol=1e-6)


def test_a_saved_page_holds_the_transported_pictures():
    from residscope.export.snapshot import snapshot
    from residscope.serving.service import Service
    from residscope.wire.shown import Shown

    _, _, cache = tiny.run(tiny.boot("llama"))
    service = Service(cache, lens=made(3))
    target = service.targets().resolve((5, 6))
    made_page = snapshot(service.reply, "cache", Shown(target, 0, tab="token-lens", transport="transported"), "view")
    kinds = [entry.ask for entry in made_page.entries if entry.ask["kind"] == "token-lens"]
    assert kinds
    assert all(ask["transport"] == "transported" for ask in kinds)
    assert all("1_mid" not in ask["points"] for ask in kinds)
    assert not [entry for entry in made_page.entries if entry.failure]


def test_maps_on_a_model_with_processed_weights_have_a_note():
    for family, compatible in (("gpt2", True), ("gpt2", False), ("llama", True)):
        _, _, cache = tiny.run(tiny.boot(family, compatible=compatible))
        notes = residscope.token_lens(cache, 5, lens=made(3)).notes
        assert any("has the mean 0" in note for note in notes) == (family == "gpt2" and compatible), (family, notes)
