"""All forms of the same answer give the same target. Forms without a clear meaning are refused in a sentence."""

from __future__ import annotations

import pytest
import torch

import residscope
from residscope import ResidscopeError
from residscope.attribution import model_value
from residscope.attribution import targets as targets_module
from tests.support import tiny
from tests.support.sizes import Sizes


def test_every_form_of_the_same_answers_gives_the_same_rows(ioi):
    expected = residscope.attribute(ioi.cache, ioi.answer_tokens, by="layer").values
    ids = ioi.answer_tokens
    forms = [
        ioi.answers,
        [tuple(pair) for pair in ids.tolist()],
        [([answer], {distractor}) for answer, distractor in ioi.answers],
        [(ids[i, 0], ids[i, 1]) for i in range(8)],
        ids.numpy(),
        list(ids),
    ]
    for form in forms:
        torch.testing.assert_close(residscope.attribute(ioi.cache, form, by="layer").values, expected)
    W_U = ioi.model.W_U.detach()
    direction = (W_U[:, ids[:, 0]] - W_U[:, ids[:, 1]]).T
    by_direction = residscope.attribute(ioi.cache, direction, by="layer")
    torch.testing.assert_close(by_direction.values, expected, atol=1e-4, rtol=1e-4)
    assert by_direction.unexplained.abs().max() < 1e-4


def test_a_string_is_explained(ioi):
    explain = residscope.targets.explain
    assert "“·Joseph” + “ine”" in explain(" Josephine", ioi.model)
    assert "try “·Joseph”" in explain(" Josephine", ioi.cache)
    assert explain(" Mary", ioi.model) == f"“·Mary” is one token in this model, id {ioi.answer_tokens[0, 0]}."
    assert "Inside a sentence the token is “·Mary”" in explain("Mary", ioi.model)


def test_sets_are_means_and_a_pair_is_a_difference(ioi):
    def total(answers):
        return residscope.attribute(ioi.cache, answers, by="layer").measured

    mary, john, tom = (total(name) for name in (" Mary", " John", " Tom"))
    torch.testing.assert_close(total((" Mary", " John")), mary - john)
    torch.testing.assert_close(total(([" Mary", " Tom"], " John")), (mary + tom) / 2 - john)
    torch.testing.assert_close(mary, ioi.logits[:, -1, ioi.answer_tokens[0, 0]])


def test_prompts_may_have_sets_of_different_sizes():
    _, logits, cache = tiny.run(tiny.boot("llama"))
    end = logits[:, -1]
    result = residscope.attribute(cache, [({5, 6, 7}, {8, 9}), (5, 6), 7], by="layer")
    expected = [end[0, 5:8].mean() - end[0, 8:10].mean(), end[1, 5] - end[1, 6], end[2, 7]]
    torch.testing.assert_close(result.measured, torch.stack(expected))
    assert result.unexplained.abs().max() <= result.tolerance


ONE_TOKEN = " Mary"
MISTAKES = [
    ({"answers": " Josephine"}, "several-tokens", ["“·Joseph” + “ine”", "try “·Joseph”"]),
    ({"answers": [" Mary", " John"]}, "answers-length", ["2 answers", "8 prompts", "tuple: (' Mary', ' John')"]),
    ({"answers": [ONE_TOKEN] * 7}, "answers-length", ["7 answers", "one for all, or one per prompt"]),
    ({"answers": torch.zeros(8, 3, dtype=torch.long)}, "answers", ["[batch, 2]", "[8, 3]"]),
    ({"answers": torch.zeros(10)}, "direction", ["[576]", "[10]"]),
    ({"answers": 10**7}, "token-id", ["10000000", "0 to 49151"]),
    ({"answers": (" Mary", " John", " Tom")}, "answers", ["3 entries"]),
    ({"answers": None}, "answers", ["None is not an answer"]),
    ({"answers": True}, "answers", ["True is not an answer"]),
    ({"answers": b" Mary"}, "answers", ["is not an answer"]),
    ({"answers": [[5, 6]] * 8}, "answers", ["a pair or a set", "(answer, distractor)"]),
    ({"answers": (torch.arange(8), torch.arange(8))}, "answers", ["torch.stack"]),
    ({"answers": ((5, 6), (7, 8))}, "answers", ["as a list"]),
    ({"answers": ([], 5)}, "answers", ["empty"]),
    ({"answers": torch.full((576,), float("nan"))}, "direction", ["NaN"]),
    ({"by": "source", "heads": 9}, "head", ["'9' is not a head"]),
    ({"by": "source"}, "heads", ['heads=["9.9"']),
    ({"by": "neuron", "layers": 1.5}, "layer", ["1.5 is not a layer"]),
    ({"by": "neuron", "layers": 99}, "layer", ["no layer 99", "0 to 29"]),
    ({"heads": "1.1"}, "heads", ['by="source"']),
    ({"layers": 1}, "layers", ['by="neuron"']),
    ({"logits": "x"}, "logits-shape", ["was given a str"]),
    ({"logits": torch.zeros(8, 15, 49152, dtype=torch.int64)}, "logits-shape", ["int64"]),
    ({"logits": torch.full((8, 15, 49152), float("nan"))}, "not-finite", ["`logits=` has NaN"]),
    ({"logits": torch.zeros(8, 15, 5)}, "logits-shape", ["5 tokens", "49152"]),
    ({"tokens": "abc"}, "tokens-shape", ["was given a str"]),
    ({"model": "gpt2"}, "no-model", ["the TransformerLens model itself"]),
    ({"norm": "thawed", "by": "accumulated"}, "norm", ['"thawed"', '"recomputed"']),
    ({"norm": "recomputed"}, "norm", ["logit lens"]),
    ({"position": 1.5}, "position", ["position=1.5"]),
    ({"answers": ""}, "several-tokens", ["An empty text is not a token"]),
    ({"position": 15}, "position", ["Position 15", "0 to 14"]),
    ({"position": [1, 2]}, "position", ["2 positions", "8 prompts"]),
    ({"position": "first"}, "position", ['"first"', '"last"']),
    ({"by": "neurons"}, "by", ['"neurons"', '"head"']),
    ({"logits": torch.zeros(2, 3, 5)}, "logits-shape", ["[2, 3, 5]", "8 prompts of 15"]),
    ({"tokens": torch.zeros(2, 3)}, "tokens-shape", ["[2, 3]"]),
]


@pytest.mark.parametrize(("given", "code", "words"), MISTAKES, ids=[code for _, code, _ in MISTAKES])
def test_a_mistake_is_refused_in_a_sentence(ioi, given, code, words):
    with pytest.raises(ResidscopeError) as error:
        residscope.attribute(ioi.cache, **{"answers": ONE_TOKEN, **given})
    assert error.value.code == code
    for word in words:
        assert word in str(error.value)


def test_a_cache_that_cannot_be_read_is_refused_in_a_sentence(ioi):
    from transformer_lens import ActivationCache

    logits, cache = ioi.logits, ioi.cache
    whole = dict(cache.items())

    def without(ending):
        return ActivationCache({name: t for name, t in whole.items() if not name.endswith(ending)}, ioi.model)

    broken = dict(whole)
    broken["blocks.7.hook_mlp_out"] = whole["blocks.7.hook_mlp_out"].clone()
    broken["blocks.7.hook_mlp_out"][2, 14, 5] = torch.nan
    cases = [
        ((logits, cache), "no-cache", ["a tuple", "run_with_cache"]),
        (ActivationCache({}, ioi.model), "empty-cache", ["empty"]),
        (ActivationCache(whole, None), "no-model", ["model=…"]),
        (without("attn.hook_z"), "missing-activation", ["`blocks.0.attn.hook_z`", "names_filter", "attn.hook_z"]),
        (ActivationCache({"embed.hook_in": ioi.tokens}, ioi.model), "no-activations", ["(it holds `embed.hook_in`)"]),
        (ActivationCache(broken, ioi.model), "not-finite", ["`blocks.7.hook_mlp_out`", "prompt 2, position 14"]),
    ]
    for given, code, words in cases:
        with pytest.raises(ResidscopeError) as error:
            residscope.attribute(given, ONE_TOKEN)
        assert error.value.code == code
        for word in words:
            assert word in str(error.value)
    gone = residscope.attribute(ActivationCache(whole, None), ONE_TOKEN, model=ioi.model)
    assert gone.unexplained.abs().max() < 1e-4


def test_missing_activations_are_replaced_or_named(ioi):
    from transformer_lens import ActivationCache

    whole = dict(ioi.cache.items())
    reference = residscope.attribute(ioi.cache, ioi.answers)

    def without(*starts):
        return ActivationCache({n: t for n, t in whole.items() if not n.startswith(starts)}, ioi.model)

    no_logits = residscope.attribute(without("unembed", "hook_unembed"), ioi.answers)
    torch.testing.assert_close(no_logits.measured, reference.measured, atol=1e-4, rtol=0)
    assert no_logits.measured_from == "the final stream, with the final norm and the unembedding"
    assert not no_logits.own  # the value is right only because this model has no further step
    assert "Pass `logits=` to check against the model's output" in no_logits.notes[0]
    assert residscope.attribute(without("unembed.hook_out", "hook_unembed"), ioi.answers).own
    checked = residscope.attribute(without("unembed", "hook_unembed"), ioi.answers, logits=ioi.logits)
    assert checked.own
    assert checked.notes == []
    no_norm = residscope.attribute(without("unembed", "hook_unembed", "ln_final"), ioi.answers)
    torch.testing.assert_close(no_norm.values, reference.values, atol=1e-4, rtol=1e-4)
    blind = residscope.attribute(
        without("unembed", "hook_unembed", "ln_final.hook_out", "blocks.29.hook_resid_post"), ioi.answers
    )
    torch.testing.assert_close(blind.values, reference.values)
    assert blind.measured.isnan().all()
    assert "logits=" in blind.measured_from
    assert "nothing to measure against" in blind.notes[0]


def test_padding_at_the_end_is_not_the_last_token():
    model = tiny.boot("llama")
    tokens = torch.tensor([[1, 5, 6, 7, 8], [1, 9, 10, 0, 0]])
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    by_default = residscope.attribute(cache, 11).values
    torch.testing.assert_close(by_default, residscope.attribute(cache, 11, position=[4, 2]).values)
    with torch.no_grad():
        _, alone = model.run_with_cache(tokens[1:, :3])
    torch.testing.assert_close(by_default[:, 1:], residscope.attribute(alone, 11).values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("tokens", "eos", "last"),
    [
        ([[1, 5, 6, 0], [1, 7, 0, 0]], 2, [2, 1]),  # even the longest prompt is padded
        ([[1, 5, 6, 0], [1, 7, 0, 0]], 0, [3, 2]),  # token 0 is also EOS, so the first one belongs to the prompt
        ([[1, 5, 6, 0]], 2, [2]),
        ([[1, 5, 6, 0]], 0, [3]),
        ([[0, 0, 1, 5], [1, 5, 6, 7]], 2, [3, 3]),
        ([[0]], 2, [0]),
    ],
)
def test_where_a_prompt_ends(tokens, eos, last):
    from residscope.cache import positions
    from residscope.cache.view import CacheView

    model = tiny.boot("llama")
    model.tokenizer.eos_token_id = eos
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor(tokens))
    assert positions.last(CacheView(cache)) == last


@pytest.mark.parametrize("at", [3, [2, 2, 2, 2, 2, 2, 2, 2]])
def test_a_position_may_be_any_kind_of_whole_number(ioi, at):
    import numpy as np

    expected = residscope.attribute(ioi.cache, ONE_TOKEN, position=at, by="layer").values
    for same in (np.asarray(at), torch.tensor(at)):
        torch.testing.assert_close(
            residscope.attribute(ioi.cache, ONE_TOKEN, position=same, by="layer").values, expected
        )


@pytest.mark.parametrize("broken", ["blocks.1.attn.hook_z", "blocks.2.hook_resid_pre", "ln_final.hook_scale"])
@pytest.mark.parametrize("by", ["head", "accumulated"])
def test_nan_is_refused_if_it_affects_the_result(broken, by):
    from transformer_lens import ActivationCache

    model = tiny.boot("gpt2")
    _, _, cache = tiny.run(model)
    unmeasured = ("unembed", "hook_unembed", "ln_final.hook_out", "ln_final.hook_normalized")
    for leave_out in ((), unmeasured):
        parts = {n: t.clone() for n, t in cache.items() if not n.startswith(leave_out or "-")}
        parts[broken][0] = torch.nan
        if (broken.endswith("hook_z") and by != "head") or (broken.endswith("resid_pre") and by == "head"):
            assert residscope.attribute(ActivationCache(parts, model), 5, by=by).values.isfinite().all()
            continue
        with pytest.raises(ResidscopeError, match="NaN or infinity"):
            residscope.attribute(ActivationCache(parts, model), 5, by=by)


def test_an_output_norm_without_a_cached_scale_is_named():
    from transformer_lens import ActivationCache

    model = tiny.boot("gemma2")
    _, _, cache = tiny.run(model)
    partial = ActivationCache({n: t for n, t in cache.items() if "ln1_post" not in n}, model)
    with pytest.raises(ResidscopeError, match=r"`blocks.0.ln1_post.hook_scale` is not in this cache"):
        residscope.attribute(partial, 5)


def test_a_cache_without_batch_dimension_is_read_as_one_prompt():
    model = tiny.boot("gpt2")
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([[1, 5, 6, 7]]))
    batched = residscope.attribute(cache, (8, 9))
    cache.remove_batch_dim()
    torch.testing.assert_close(residscope.attribute(cache, (8, 9)).values, batched.values)


# --- forms of answers ------------------------------------------------------------------------------------------------
def two_prompts():
    """Return the cache of two prompts, and the model's logits at their last positions."""
    model = tiny.boot("llama")
    with torch.no_grad():
        logits, cache = model.run_with_cache(torch.tensor([[1, 5, 6, 7], [1, 9, 10, 11]]))
    return cache, logits[:, -1]


@pytest.mark.parametrize("side", [list, lambda words: words[0], set])
def test_two_lists_as_long_as_the_batch_are_not_taken_for_sets(side):
    """`(["A1", "A2"], ["B1", "B2"])` may be two columns or two sets, so it is refused."""
    cache, last = two_prompts()
    with pytest.raises(ResidscopeError) as error:
        residscope.attribute(cache, (["w20", "w21"], side(["w21", "w20"])))
    assert error.value.code == "answers"
    assert "list(zip(" in str(error.value)
    assert "({" in str(error.value)
    columns = residscope.attribute(cache, list(zip(["w20", "w21"], ["w21", "w20"], strict=True)))
    torch.testing.assert_close(columns.measured, torch.stack([last[0, 20] - last[0, 21], last[1, 21] - last[1, 20]]))
    sets = residscope.attribute(cache, ({"w20", "w21"}, {"w22", "w23"}))
    torch.testing.assert_close(sets.measured, last[:, [20, 21]].mean(1) - last[:, [22, 23]].mean(1))
    three = residscope.attribute(
        cache, (["w20", "w21", "w22"], "w23")
    )  # three tokens cannot be one for each of two prompts, so they are a set
    torch.testing.assert_close(three.measured, last[:, [20, 21, 22]].mean(1) - last[:, 23])


def frame():
    import pandas as pd

    return pd.DataFrame({"answer": ["w20", "w21"], "other": ["w21", "w20"], "id": [20, 21], "number": [20.0, 21.0]})


def held(name: str):
    """Return answers in one of the forms in which users have them."""
    import numpy as np

    table = frame()
    return {
        "array of texts": np.array(["w20", "w21"]),
        "array of objects": np.array(["w20", "w21"], dtype=object),
        "array of rows": np.array([["w20", "w21"], ["w21", "w20"]]),
        "array of rows of objects": np.array([["w20", "w21"], ["w21", "w20"]], dtype=object),
        "column": table["answer"],
        "column of another index": table["answer"].set_axis([7, 9]),
        "column of ids": table["id"],
        "index": table.set_index("answer").index,
        "frame": table[["answer", "other"]],
        "frame of ids": table[["id"]].assign(other=[21, 20]),
        "one text": np.str_("w20"),
        "zipped columns": list(zip(table["answer"], table["other"], strict=True)),
        "range": range(20, 22),
    }[name]


SINGLE, PAIRS, ONE = [(0, 20, None), (1, 21, None)], [(0, 20, 21), (1, 21, 20)], [(0, 20, None), (1, 20, None)]


@pytest.mark.parametrize(
    ("name", "means"),
    [
        *[(name, SINGLE) for name in ("array of texts", "array of objects", "column", "column of another index")],
        *[(name, SINGLE) for name in ("column of ids", "index", "range")],
        *[(name, PAIRS) for name in ("array of rows", "array of rows of objects", "frame", "frame of ids")],
        ("zipped columns", PAIRS),
        ("one text", ONE),
    ],
)
def test_answers_in_arrays_of_texts_and_columns_of_tables_are_read(name, means):
    cache, last = two_prompts()
    expected = [last[row, answer] - (0 if other is None else last[row, other]) for row, answer, other in means]
    torch.testing.assert_close(residscope.attribute(cache, held(name)).measured, torch.stack(expected))


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (lambda: (frame()["answer"], frame()["other"]), ["list(zip("]),
        (lambda: (frame()["id"], frame()["id"]), ["list(zip("]),
        (lambda: frame()["number"], ["whole numbers"]),
        (lambda: torch.tensor([20.0, 21.0]), ["whole numbers"]),
        (lambda: frame()[["answer", "other", "id"]], ["[2, 3]"]),
        (lambda: frame()["answer"].where([True, False]), ["is not an answer"]),
        (lambda: {"w20": "w21"}, ["a dict"]),
        (lambda: (word for word in ["w20", "w21"]), ["list(…)"]),
        (lambda: torch.tensor([1j, 2j]), ["is not an answer"]),
        (lambda: torch.tensor([True, False]), ["is not an answer"]),
    ],
)
def test_answers_in_an_ambiguous_form_are_refused_in_a_sentence(answers, words):
    with pytest.raises(ResidscopeError) as error:
        residscope.attribute(two_prompts()[0], answers())
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("shared", [True, False])
def test_many_tokens_are_summed_in_parts(shared, given, monkeypatch):
    """Expected: the direction and the value by hand in float64. Memory does not grow as prompts × tokens × d_model."""
    model = tiny.boot("bloom")
    _, logits, cache = tiny.run(model)
    held = {name: tensor for name, tensor in cache.items() if "unembed" not in name}
    answers = [({*range(3 + prompt, 50)}, {*range(50, 60)}) for prompt in range(3)]
    answers = answers[0] if shared else answers
    signs = torch.zeros(3, tiny.VOCAB, dtype=torch.float64)
    for prompt, (answer, other) in enumerate([answers] * 3 if shared else answers):
        signs[prompt, list(answer)], signs[prompt, list(other)] = 1 / len(answer), -1 / len(other)
    options = {"by": "layer", "model": model, "logits": logits if given else None}
    once = residscope.attribute(held, answers, **options)
    for module in (model_value, targets_module):
        monkeypatch.setattr(module, "COLUMN_VALUES", 600)
    with Sizes() as sizes:
        parts = residscope.attribute(held, answers, **options)
    direction = (signs @ model.W_U.detach().double().T).float()
    by_hand = residscope.attribute(held, direction, by="layer", model=model)
    for found in (once, parts):
        torch.testing.assert_close(found.values, by_hand.values, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(found.measured.double(), (logits[:, -1] * signs).sum(-1), atol=1e-5, rtol=1e-4)
    assert sizes.largest < (3 * 57 * 24) // 2
