"""Results are memoised only until something changes on which they depend. Then they are computed again.

Results depend on activations, weights, modules and `has_batch_dim` (tested in `test_memo.py` and
`test_change_tracking.py`). They also depend on the tokenizer with its special tokens and its vocabulary, on the model's
configuration, on other attributes of its modules, and on the arguments of the call (`tokens=`, `logits=`, `model=`).
"""

from __future__ import annotations

import ast
import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from tokenizers import models
from transformer_lens import ActivationCache

import residscope
from residscope.serving.service import Service
from residscope.terms import Score
from tests.support import saes, tiny
from tests.support.brute import Brute

PACKAGE = Path(residscope.__file__).parent
PADDED = torch.tensor([[1, 5, 6, 7, 8], [1, 9, 10, 3, 3]])  # padded with w3, id 3, if that is declared as padding
ENDS, PADDED_ENDS = (4, 4), (4, 2)


def ask(looked: SimpleNamespace, answers: Any, **given: Any) -> list[float]:
    """Return the target of each prompt, and check that Python and views give the same."""
    found = residscope.attribute(looked.cache, answers, by="layer", **given)
    panel = residscope.inspect(looked.cache, answers=answers, show=False, **given)
    for service in (panel._service, Service(looked.cache, **given)):  # an open panel and a new one
        looked.services.append(service)
    for service in looked.services[-2:]:
        for prompt, figure in enumerate(found.measured.tolist()):
            asked = {"kind": "attribute", "by": "layer", "target": panel.wire_target, "prompt": prompt}
            answered, _ = service.answer({"id": "1", "ask": asked})
            assert answered["reply"]["measured"] == pytest.approx(figure, abs=1e-5)
    looked.target = panel.wire_target
    panel.close()
    return found.measured.tolist()


def first_look(name: str = "llama") -> SimpleNamespace:
    model = copy.deepcopy(tiny.boot(name))
    model.tokenizer.pad_token = None
    with torch.no_grad():
        logits, cache = model.run_with_cache(PADDED)
    return SimpleNamespace(model=model, logits=logits, cache=cache, services=[], target={})


def at(logits: torch.Tensor, ends: tuple[int, int], answer: int, other: int | None = None) -> list[float]:
    """Return the target of each prompt from the model's own logits."""
    rows = logits[[0, 1], list(ends)]
    return (rows[:, answer] - (0 if other is None else rows[:, other])).tolist()


def says_changed(looked: SimpleNamespace) -> bool:
    """Return whether values of the cache have a note on changed weights."""
    notes = residscope.attribute(looked.cache, (11, 12), by="layer").notes
    return any("weights were changed after this cache was first seen" in note for note in notes)


@pytest.mark.parametrize("question", [(11, 12), (13, 14)], ids=["asked before", "new"])
def test_a_padding_token_that_is_set_after_the_first_call_is_used(question):
    looked = first_look()
    assert ask(looked, (11, 12)) == pytest.approx(at(looked.logits, ENDS, 11, 12), abs=1e-5)
    still_open = looked.services[1]
    looked.model.tokenizer.pad_token = "w3"
    assert ask(looked, question) == pytest.approx(at(looked.logits, PADDED_ENDS, *question), abs=1e-5)
    asked = {"kind": "attribute", "by": "layer", "target": looked.target, "prompt": 1}
    measured = still_open.answer({"id": "1", "ask": asked})[0]["reply"]["measured"]
    assert measured == pytest.approx(at(looked.logits, PADDED_ENDS, *question)[1], abs=1e-5)
    looked.model.tokenizer.pad_token = None
    assert ask(looked, question) == pytest.approx(at(looked.logits, ENDS, *question), abs=1e-5)


@pytest.mark.parametrize("asked", [False, True], ids=["read in Python", "told to the browser"])
def test_an_open_panel_follows_a_padding_token_that_is_set(asked):
    looked = first_look()
    panel = residscope.inspect(looked.cache, (11, 12), show=False)
    assert (panel.facts["last"], panel.facts["padding"], panel.position) == (list(ENDS), 0, 4)
    told = []
    panel.observe(lambda change: told.append(change.new["last"]), "facts")
    for token, ends, position in (("w3", PADDED_ENDS, "last"), (None, ENDS, 4)):
        looked.model.tokenizer.pad_token = token
        if asked:
            panel._on_message(panel, {"id": "1", "ask": {"kind": "check", "text": "w5"}}, [])
            assert told[-1] == list(ends)
        assert panel.facts["last"] == list(ends)
        assert panel.position == position  # the panel is still at the last tokens
        measured = residscope.attribute(looked.cache, (11, 12), by="layer").measured.tolist()
        assert measured == pytest.approx(at(looked.logits, ends, 11, 12), abs=1e-5)
    assert len(told) == 2
    panel.position = 3  # a position that the user has chosen stays
    looked.model.tokenizer.pad_token = "w3"
    assert (panel.facts["last"], panel.position) == (list(PADDED_ENDS), 3)
    panel.close()


def exchanged(tokenizer: Any, *, in_place: bool) -> Any:
    """Return the tokenizer, or a copy, in which w20 and w21 have exchanged their ids."""
    made = tokenizer if in_place else copy.deepcopy(tokenizer)
    words = made.get_vocab()
    words["w20"], words["w21"] = words["w21"], words["w20"]
    made._tokenizer.model = models.WordLevel(words, unk_token="<pad>")
    return made


@pytest.mark.parametrize("in_place", [True, False], ids=["changed in place", "exchanged"])
def test_changed_words_of_the_tokenizer_are_used(in_place):
    looked = first_look()
    assert ask(looked, "w20") == pytest.approx(at(looked.logits, ENDS, 20), abs=1e-5)
    assert ask(looked, ("w20", {"w21", "w22"})) != []
    changed = exchanged(looked.model.tokenizer, in_place=in_place)
    if not in_place:
        looked.model.tokenizer = changed
        looked.model.tokenizer.pad_token = None
    assert ask(looked, "w20") == pytest.approx(at(looked.logits, ENDS, 21), abs=1e-5)
    assert residscope.token_lens(looked.cache, prompt=0, k=64, points="final_post", positions=4).tokens[0][0].index(
        "w20"
    ) == looked.logits[0, 4].argsort(descending=True).tolist().index(21)
    answered, _ = looked.services[1].answer({"id": "1", "ask": {"kind": "check", "text": "w20"}})
    assert answered["reply"]["tokens"][0]["id"] == 21


def test_an_added_token_is_used():
    looked = first_look()
    tokenizer = looked.model.tokenizer
    with pytest.raises(residscope.ResidscopeError, match="not in this model's vocabulary"):
        residscope.attribute(looked.cache, "new")
    tokenizer.add_tokens(["new"])
    with pytest.raises(residscope.ResidscopeError, match="outside the vocabulary"):
        residscope.attribute(looked.cache, "new")


def test_a_changed_configuration_is_used():
    looked = first_look("gemma2")
    written = looked.cache["unembed.hook_out"]
    config = looked.model.original_model.config  # the model reads this during a run
    first = config.final_logit_softcapping
    assert not says_changed(looked)
    for cap in (None, 2.0, 5.0):
        config.final_logit_softcapping = cap
        expected = written if cap is None else cap * (written / cap).tanh()
        for answers in ((11, 12), (13, 14)):
            assert ask(looked, answers) == pytest.approx(at(expected, ENDS, *answers), abs=1e-4)
        assert says_changed(looked) == (cap != first)


def test_a_changed_attribute_of_a_module_is_used():
    looked = first_look()
    kept = ("blocks.", "hook_embed", "embed.hook_in")  # not `ln_final`: so the final norm is computed from the stream
    held = {name: tensor for name, tensor in looked.cache.items() if name.startswith(kept)}
    looked.cache = ActivationCache(held, looked.model)
    stream = held["blocks.2.hook_resid_post"].double()
    norm = looked.model.ln_final.original_component
    for eps in (1e-6, 0.5, 3.0):
        norm.variance_epsilon = eps
        normal = stream / (stream.pow(2).mean(-1, keepdim=True) + eps).sqrt() * norm.weight.detach().double()
        expected = normal @ looked.model.W_U.detach().double()
        assert ask(looked, (11, 12)) == pytest.approx(at(expected, ENDS, 11, 12), abs=1e-4)
        assert says_changed(looked) == (eps != 1e-6)  # 1e-6 is the initial value


@pytest.mark.parametrize("write", [lambda held: held.fill_(3.0), lambda held: held.data.fill_(3.0)], ids=["", ".data"])
def test_a_changed_buffer_of_a_module_is_used(write):
    looked = first_look("gemma4_text")
    assert not says_changed(looked)
    write(looked.model.blocks[1].original_component.layer_scalar)
    assert says_changed(looked)
    fresh = ActivationCache(dict(looked.cache.cache_dict), looked.model)
    assert torch.equal(*(residscope.attribute(one, (11, 12)).values for one in (looked.cache, fresh)))


def test_changed_arguments_are_used():
    looked = first_look()
    looked.model.tokenizer.pad_token = "w3"
    assert ask(looked, (11, 12)) == pytest.approx(at(looked.logits, PADDED_ENDS, 11, 12), abs=1e-5)
    tokens = PADDED.clone()
    for ends, last in ((PADDED_ENDS, 3), (ENDS, 4)):
        tokens[1, -1] = last  # changed in place
        assert ask(looked, (11, 12), tokens=tokens) == pytest.approx(at(looked.logits, ends, 11, 12), abs=1e-5)
    for factor in (1, 2):
        logits = looked.logits * factor
        assert ask(looked, (11, 12), logits=logits) == pytest.approx(at(logits, PADDED_ENDS, 11, 12), abs=1e-5)
    other = copy.deepcopy(looked.model)
    other.tokenizer.pad_token = None
    assert ask(looked, (11, 12), model=other) == pytest.approx(at(looked.logits, ENDS, 11, 12), abs=1e-5)
    assert ask(looked, (11, 12)) == pytest.approx(at(looked.logits, PADDED_ENDS, 11, 12), abs=1e-5)


def test_copying_is_computed_again_if_the_configuration_changed():
    looked = first_look("gemma2")
    for cap in (0.0, 5.0, 0.0):
        looked.model.original_model.config.final_logit_softcapping = cap or None
        found = residscope.scores(looked.cache, "copying").values
        torch.testing.assert_close(found.double(), circuits(looked, capped=cap > 0), atol=1e-4, rtol=1e-4)


def circuits(looked: SimpleNamespace, *, capped: bool) -> torch.Tensor:
    """Return the copying score of each head, computed in float64 from its whole circuit, a matrix of tokens by tokens.

    Before a soft-cap, the mean over the vocabulary is not subtracted, because this would change predictions.
    """
    model = looked.model
    brute = Brute(model, looked.cache, torch.tensor([[11, 12], [11, 12]]), 4)
    W_E, W_U = model.W_E.detach().double(), model.W_U.detach().double()
    W_U = W_U if capped else W_U - W_U.mean(-1, keepdim=True)
    scores = []
    for block in model.blocks:
        before, behind = (brute.norm(norm).weight for norm in (block.ln1, block.ln1_post))
        W_V, W_O = (weight.detach().double() for weight in (block.attn.W_V, block.attn.W_O))
        for head in range(len(W_O)):
            written = W_E * before @ W_V[head * len(W_V) // len(W_O)] @ W_O[head] * behind * brute.final.weight
            eigenvalues = torch.linalg.eigvals(written @ W_U)
            scores.append(eigenvalues.real.sum() / eigenvalues.abs().sum())
    return torch.stack(scores).view(len(model.blocks), -1)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_the_process_default_device_changes_nothing(device):
    """Under `torch.set_default_device`, given tensors stay on their device, and new tensors are on the cache's."""
    looked = first_look()
    ids, mask = torch.tensor([[11, 12], [13, 14]]), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    one, other = at(looked.logits, ENDS, 11, 12)[0], at(looked.logits, PADDED_ENDS, 13, 14)[1]
    kinds = (lambda given: given, lambda given: given.numpy(), lambda given: given.tolist())
    torch.set_default_device(device)
    try:
        for kind in kinds:
            answers = [tuple(pair) for pair in kind(ids)] if kind is kinds[2] else kind(ids)
            given = {"tokens": kind(PADDED), "attention_mask": kind(mask), "logits": kind(looked.logits)}
            found = residscope.attribute(looked.cache, answers, **given)
            assert found.measured.tolist() == pytest.approx([one, other], abs=1e-5)
            assert {found.values.device.type, found.measured.device.type} == {"cpu"}
    finally:
        torch.set_default_device(None)


T = residscope.targets
SAE = saes.TopK(24, hook_name="blocks.1.hook_mlp_out")
ON_DEVICE = {
    "many prompts": lambda cache: residscope.attribute(cache, [(11, 12), (13, 14)] * 32, by="neuron"),
    "sae": lambda cache: residscope.attribute(cache, (11, 12), by="feature", sae=SAE),
    "next token": lambda cache: residscope.attribute(cache, T.next_token(), position="all"),
    "pairs": lambda cache: residscope.pairs(cache, T.attention("L1H0", 4, 1)),
    "weighted": lambda cache: residscope.attention(cache, ["1.1"], weighting="contribution", answers=(11, 12)),
    "compared": lambda cache: residscope.compare(cache, answers=(11, 12), prompt=0, with_prompt=1),
    **{score: lambda cache, score=score: residscope.scores(cache, score) for score in get_args(Score)},
    **{
        f"{side} side, {versus}": lambda cache, side=side, versus=versus: residscope.attribute(
            cache, T.attention("L1H0", 4, 1, versus=versus, side=side)
        )
        for side in ("query", "key")
        for versus in (None, "mean", "most", 0)
    },
    **{
        f"output from {source}": lambda cache, source=source: residscope.attribute(
            cache, T.output("L1H0", of=(11, 12), source=source)
        )
        for source in (None, 1)
    },
}


@pytest.fixture(scope="module")
def many():
    """A cache of 64 prompts, of which many have equal directions, so that `repeats` looks for these."""
    model = tiny.boot("llama")
    with torch.no_grad():
        return model.run_with_cache(PADDED.repeat(32, 1))[1]


@pytest.mark.parametrize("name", ON_DEVICE)
def test_the_default_device_changes_no_value(many, name):
    """The default device is `meta`: a tensor that is made there by mistake has no values, so reading it fails."""
    fresh = ActivationCache(dict(many.cache_dict), many.model)
    with torch.device("meta"):
        found = ON_DEVICE[name](fresh)
    torch.testing.assert_close(found.values, ON_DEVICE[name](many).values, equal_nan=True)


def test_each_new_tensor_names_its_device():
    """Otherwise it would be made on the default device, which may be another device than the cache's."""
    makes = {function.__name__ for function in torch.utils._device._device_constructors()} | {"from_file"}
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in makes
            if (
                is_call
                and ast.unparse(node.func).startswith("torch.")
                and "device" not in {k.arg for k in node.keywords}
            ):
                found.append(f"{file.relative_to(PACKAGE)}:{node.lineno} {ast.unparse(node)}")
    assert found == []


def test_scores_depend_on_the_tokens_that_are_given():
    looked = first_look()
    others = PADDED.clone()
    others[:, 3] = others[:, 1]
    for score in ("duplicate", "induction"):
        fresh = ActivationCache(dict(looked.cache.cache_dict), looked.model)
        true = residscope.scores(fresh, score, tokens=others).values
        own = residscope.scores(looked.cache, score).values
        assert not torch.equal(own, true)
        assert torch.equal(residscope.scores(looked.cache, score, tokens=others).values, true)
        assert torch.equal(residscope.scores(looked.cache, score).values, own)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.original_model, "logit_scale", 4.0),
        lambda model: setattr(model.adapter, "apply_output_logits_transform", lambda logits: 4.0 * logits),
    ],
    ids=["the model's own factor", "what its adapter declares"],
)
def test_a_changed_factor_of_the_logits_is_used(change):
    looked = first_look()
    before = residscope.attribute(looked.cache, (11, 12), by="layer", position=2).values
    lens = residscope.token_lens(looked.cache).probabilities
    change(looked.model)
    assert torch.allclose(residscope.attribute(looked.cache, (11, 12), by="layer", position=2).values, 4 * before)
    assert not torch.allclose(residscope.token_lens(looked.cache).probabilities, lens)
    assert says_changed(looked)


def test_logits_whose_change_is_not_counted_by_pytorch_are_noticed(monkeypatch):
    monkeypatch.setattr("residscope.compute.memo._MAX_COMPARED", 10)  # so that these logits count as large
    looked = first_look()
    given = looked.logits.clone()
    asked = {"by": "layer", "position": 2, "logits": given}
    before = residscope.attribute(looked.cache, 11, **asked).measured
    given.data.mul_(2)
    assert torch.allclose(residscope.attribute(looked.cache, 11, **asked).measured, 2 * before)
