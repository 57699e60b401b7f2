"""The exported code for a picture gives the shown array in a new cell, and reads as if a person had written it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

import residscope
from residscope import ResidscopeError, targets
from residscope.export.python_source import call, literal
from residscope.serving.service import Service
from residscope.terms import SegmentRange
from residscope.wire.shown import Picture, Shown
from tests.support import tiny
from tests.support.copied import pictured, pictured_attention, ran, written

PAIR = ("w5", "w9")


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def run(request):
    """A tiny model and its run: three prompts of seven tokens."""
    model = tiny.boot(request.param)
    tokens, logits, cache = tiny.run(model)
    return SimpleNamespace(model=model, tokens=tokens, logits=logits, cache=cache)


@pytest.fixture(scope="module")
def llama():
    model = tiny.boot("llama")
    return SimpleNamespace(model=model, cache=tiny.run(model)[2])


TARGETS = {
    "pair": ("w5", "w9"),
    "single": "w7",
    "per prompt": [("w5", "w9"), ("w6", "w8"), ("w9", "w5")],
    "set": {"w5", "w6"},
    "set versus token": (["w5", "w6"], "w9"),
    "next token": targets.next_token(),
    "next token versus": targets.next_token("runner-up"),
}
PICTURES = ["lens", "layers", "heads", "ranking", "attention", "positions", "token-lens", "prompts"]


ELSEWHERE = {
    "why": "test_why.py",
    "runs": "test_compared_requests.py",
    "attention-of-runs": "test_compared_requests.py",
    "stream": "test_measuring.py",
    "segments": "test_segment_requests.py",
    "features": "test_feature_requests.py",
}
"""The pictures whose code is run by the tests of another file."""


def test_the_code_of_every_picture_is_run_and_documented():
    assert {*PICTURES, *ELSEWHERE} == set(get_args(Picture))
    for picture, file in ELSEWHERE.items():
        text = Path(__file__).with_name(file).read_text("utf8")
        assert "WriteCode(" in text or f'written(service, "{picture}"' in text
    exports = (Path(residscope.__file__).parents[1] / "docs" / "exports.md").read_text("utf8")
    _, _, table = exports.partition("| picture | `values` |\n|---|---|\n")
    assert len(table.partition("\n\n")[0].splitlines()) == len(get_args(Picture))


@pytest.mark.parametrize(("prompt", "position"), [(None, "last"), (None, 3), (0, "last"), (1, 0), (2, 3)])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("picture", PICTURES)
def test_the_code_gives_the_array_that_is_shown(llama, picture, target, prompt, position):
    options = OPTIONS.get(picture, [{}])
    some = options if target == "pair" or "next" in target else options[-1:]
    check(llama.cache, picture, TARGETS[target], prompt, position, some)


@pytest.mark.parametrize("picture", PICTURES)
def test_the_code_gives_the_same_array_for_a_model_with_biases(picture):
    _, _, cache = tiny.run(tiny.boot("gpt2"))
    check(cache, picture, TARGETS["per prompt"], None, "last", OPTIONS.get(picture, [{}]))


OPTIONS = {
    "lens": [{"norm": "recomputed"}, {}],
    "heads": [{"score": "previous"}, {"score": "copying"}, {}],
    "ranking": [{"ranking": "neurons"}, {"ranking": "neurons", "layer": 0}, {}],
    "attention": [
        {"weighting": weighting, "presentation": presentation}
        for weighting in ("pattern", "value", "contribution")
        for presentation in ("matrix", "text")
    ],
    "positions": [
        {"by": "accumulated", "norm": "recomputed"},
        *({"by": by} for by in ("accumulated", "layer", "head")),
    ],
    "prompts": [{"heads": []}, {"heads": ["L2H3"]}, {"heads": ["L2H3", "L0H1"]}],
}


def check(cache, picture, answers, prompt, position, options):
    service = Service(cache)
    target = service.targets().resolve(answers)
    for option in options:
        selection = {"prompt": prompt, "position": position, "heads": ["L2H3", "L0H1"], "top_k": 3} | option
        shown = Shown(target, **selection)
        code = written(service, picture, shown)
        has_position = picture in ("lens", "layers", "heads", "ranking", "prompts") and not shown.score
        assert bool(re.search(rf"position={position}\b", code)) == (has_position and position != "last")
        values = ran(code, cache=cache)
        if picture == "attention":
            expected, step = pictured_attention(service, shown)
            if shown.presentation == "text":  # one line for all heads: contributions are summed, other maps averaged
                expected = expected.sum(0) / (1 if shown.weighting == "contribution" else len(shown.heads))
                step = step.sum(0)
            assert (np.abs(values - expected) <= step + 1e-6).all()
        else:
            np.testing.assert_allclose(values, pictured(service, picture, shown), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("position", ["last", 2])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_code_for_next_tokens_of_prompts_of_different_lengths(side, position):
    model = tiny.boot("llama")
    tokens = tiny.run(model)[0]
    mask = torch.ones_like(tokens)
    if side == "left":
        mask[1, :2] = mask[2, :1] = 0
    else:
        mask[1, 4:] = mask[2, 6:] = 0
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens * mask, attention_mask=mask)
    for prompt in (None, 0, 1, 2):
        if (side, prompt, position) == ("left", None, 2):  # position 2 is the first token of prompt 1
            position = 3
        service = Service(cache, attention_mask=mask)
        target = service.targets().resolve(targets.next_token("runner-up"))
        for picture in PICTURES:
            for option in OPTIONS.get(picture, [{}]):
                if option.get("ranking") == "neurons":
                    continue
                shown = Shown(target, **({"prompt": prompt, "position": position, "heads": ["L2H3", "L0H1"]} | option))
                values = ran(written(service, picture, shown), cache=cache, attention_mask=mask)
                if picture == "attention":
                    expected, _ = pictured_attention(service, shown)
                    if shown.presentation == "text":
                        expected = expected.sum(0) / (1 if shown.weighting == "contribution" else 2)
                    np.testing.assert_allclose(values, expected, atol=1e-6)
                elif picture != "ranking":
                    np.testing.assert_allclose(values, pictured(service, picture, shown), atol=1e-6, rtol=1e-6)


def test_maps_without_one_destination_have_no_code_for_contributions_to_next_tokens(llama):
    """The panel does not show them either."""
    service = Service(llama.cache)
    target = service.targets().resolve(targets.next_token())
    every = Shown(target, 1, presentation="all", weighting="contribution")
    segments = Shown(target, 1, heads=["L2H3"], segments=[SegmentRange("a", 0, 3), SegmentRange("b", 3, 7)],
                     weighting="contribution")  # fmt: skip
    for picture, shown in (("attention", every), ("segments", segments)):
        with pytest.raises(ResidscopeError, match="one target for all destinations"):
            written(service, picture, shown)


@pytest.mark.parametrize(("family", "heads"), [("lfm2", 8), ("laguna-heads", 8), ("llama", 12)])
def test_the_code_for_all_heads_has_only_heads_that_exist(family, heads):
    """In two of these models, some layers have no attention, or fewer heads than other layers."""
    cache = tiny.run(tiny.boot(family))[2]
    service = Service(cache)
    target = service.targets().resolve(PAIR)
    for weighting in ("pattern", "value", "contribution"):
        shown = Shown(target, 1, presentation="all", weighting=weighting)
        assert ran(written(service, "attention", shown), cache=cache).shape == (heads, 7, 7)


def test_the_code_reads_as_if_a_person_had_written_it(llama):
    service = Service(llama.cache)
    target = service.targets().resolve(PAIR)
    assert written(service, "heads", Shown(target, position=6)) == (
        "import residscope\n"
        "\n"
        "# `cache` stands for the ActivationCache that is shown.\n"
        'attribution = residscope.attribute(cache, ("w5", "w9"), by="head")\n'
        "values = attribution.grid.mean(-1)  # [layer, head], logits, the mean over 3 prompts\n"
        "figure = attribution.to_plotly()\n"
        "figure\n"
    )
    assert written(service, "attention", Shown(target, 1, heads=["L2H3"], weighting="value")) == (
        "import residscope\n"
        "\n"
        "# `cache` stands for the ActivationCache that is shown.\n"
        'attribution = residscope.attention(cache, ["L2H3"], prompt=1, weighting="value")\n'
        "values = attribution.values  # [head, destination, source], prompt 1\n"
        "figure = attribution.to_plotly()\n"
        "figure\n"
    )


def test_a_long_list_in_the_code_has_one_line_for_each_entry():
    short, long = ["word"] * 9, ["a long word"] * 7
    assert literal(short) == "[" + ", ".join(['"word"'] * 9) + "]"
    assert call("f", ["cache", literal(long), "k=1"]) == (
        "f(\n    cache,\n    [\n" + '        "a long word",\n' * 7 + "    ],\n    k=1,\n)"
    )


@pytest.mark.parametrize("length", [1, 5, 9, 20])
def test_no_line_of_the_code_has_more_than_a_hundred_characters(length):
    for count in range(1, 40):
        code = call("attribution = residscope.attribute", ["cache", literal(["w" * length] * count), 'by="head"'])
        assert max(map(len, code.splitlines())) <= 100


@pytest.fixture
def notebook(monkeypatch):
    """The variables of a notebook. The test adds them."""
    import IPython.core.getipython

    variables: dict[str, object] = {}
    monkeypatch.setattr(IPython.core.getipython, "get_ipython", lambda: SimpleNamespace(user_ns=variables))
    return variables


def test_the_code_uses_the_names_of_the_users_variables(run, notebook):
    given = {"logits": run.logits.clone(), "tokens": run.tokens.clone(), "model": run.model}
    direction = torch.randn(run.model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    service = Service(run.cache, "a label of mine", **given)
    shown = Shown(service.targets().resolve(direction), prompt=2)

    code = written(service, "layers", shown)  # the notebook has no variables yet
    for name in ("cache", "logits", "tokens", "model", "direction"):
        assert f"# `{name}` stands for " in code
    assert "shown as 'a label of mine'" in code
    expected = pictured(service, "layers", shown)
    np.testing.assert_allclose(ran(code, cache=run.cache, direction=direction, **given), expected, atol=1e-6)

    notebook |= {"runs": {"clean": run.cache}, "other": torch.zeros_like(direction), "d": direction}
    notebook |= {"out": given["logits"], "ids": given["tokens"], "bridge": given["model"]}
    code = written(service, "layers", shown)
    assert "# `" not in code
    assert 'runs["clean"], d, ' in code.replace("\n    ", " ")
    assert {"logits=out", "tokens=ids", "model=bridge"} <= {line.strip(" ,") for line in code.splitlines()}
    np.testing.assert_allclose(ran(code, **notebook), expected, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ['x"]; import os #', "runs[…]", "a\nb", 'runs["x"] (2)', "f()", "lambda: 0", "x #", "x[\n0]", "x\n"],
)
def test_a_cache_name_that_is_not_a_variable_does_not_become_code(llama, name):
    service = Service(llama.cache, name)
    code = written(service, "layers", Shown(service.targets().resolve(PAIR)))
    assert len(code.splitlines()) == 7
    ran(code, cache=llama.cache)


def test_hostile_tokens_in_the_code_are_escaped():
    from tests.support import hostile

    _, cache = hostile.cache()
    service = Service(cache)
    vocabulary = service.targets().vocabulary
    tokens = [vocabulary.token(id) for id in range(len(hostile.TOKENS))]
    shown = Shown(service.targets().resolve(([t.id for t in tokens[:-1]], tokens[-1].id)), prompt=0, heads=["L0H1"])
    for picture in PICTURES:
        code = written(service, picture, shown)
        np.testing.assert_array_less(-np.inf, ran(code, cache=cache))
        assert "\u202e" not in code


@pytest.mark.parametrize(("picture", "prompt"), [("heads", None), ("lens", 3), ("attention", 5)])
def test_the_code_of_the_demo_gives_the_array_that_is_shown(ioi, picture, prompt):
    service = Service(ioi.cache)
    shown = Shown(service.targets().resolve(ioi.answers), prompt, heads=["L23H3", "L29H0"], weighting="contribution")
    assert '(" Mary", " John"),' in written(service, picture, shown)
    check(ioi.cache, picture, ioi.answers, prompt, "last", [{"heads": shown.heads, "weighting": shown.weighting}])
