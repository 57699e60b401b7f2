"""Effects that a view requests are measured only in turns (see `serving.turns`) on the main thread.

Expected: `residscope.ablate` and `patch` (which other tests compare with hooked runs), and TransformerLens' own hooks.
"""

from __future__ import annotations

import threading
import types
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

import residscope
from residscope.causes.hooks import hook_state
from residscope.serving import turns
from residscope.serving.service import Service
from residscope.terms import Against
from residscope.wire.causes import MeasureEffects, RunWithout
from residscope.wire.comparisons import Compare, CompareAttention
from residscope.wire.shown import Shown, WriteCode, WritePage
from tests.support import tiny

PAIR = ("w5", "w9")


@pytest.fixture
def run(monkeypatch):
    """A tiny model with two runs of three prompts, in the user's namespace, and a service for the first run."""
    model = tiny.boot("llama")
    tokens, _, cache = tiny.run(model)
    with torch.no_grad():
        _, other = model.run_with_cache(tokens.roll(1, 0))
    names = {"cache": cache, "other": other, "model": model, "residscope": residscope}
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: types.SimpleNamespace(user_ns=names))
    service = Service(cache)
    target = service.targets().resolve(PAIR)
    return types.SimpleNamespace(
        model=model, tokens=tokens, cache=cache, other=other, names=names, service=service, target=target
    )


def ask(run, request, *, gives_turns=True):
    reply, buffers = run.service.reply(request, gives_turns=gives_turns)
    shape = run.model.cfg.n_layers, -1
    return reply, [np.frombuffer(buffer, np.float32).reshape(shape) if buffer else None for buffer in buffers]


def measured(run, request, most=500):
    """Send a request and give turns until everything is measured. Return the reply and its buffers."""
    for _ in range(most):
        reply, buffers = ask(run, request)
        if reply.state != "waiting":
            return reply, buffers
        turns.take(reply.turn)
    raise AssertionError("the measurement does not end")


@contextmanager
def calls(run):
    """A list that grows at each call of the first block. (A hook on the block would be a change of the run.)"""
    found: list[int] = []
    block = run.model.blocks[0]
    handle = register_module_forward_hook(lambda module, *_: found.append(1) if module is block else None)
    try:
        yield found
    finally:
        handle.remove()


# For each case: fields of the request, options of `ablate`, and the factor from the effects of `ablate` to those shown.
CASES = {
    "zero": ({}, {"replace": "zero"}, -1),
    "the mean": ({"replaced_by": "mean"}, {"replace": "mean"}, -1),
    "another cache": ({"replaced_by": "other", "against": Against("other")}, {"replace": "other"}, 1),
    "another prompt": ({"replaced_by": "other", "against": Against(None, 1)}, {"replace": ("cache", 1)}, 1),
    "at another position": ({"position": 3}, {"position": 3}, -1),
}


@pytest.mark.parametrize("prompt", [None, 2])
@pytest.mark.parametrize("case", CASES)
def test_effects_are_those_of_ablate(run, case, prompt):
    asked, given, sign = CASES[case]
    if case == "another prompt" and prompt is None:
        with pytest.raises(residscope.ResidscopeError, match="choose a prompt"):
            ask(run, MeasureEffects(run.target, prompt=prompt, **asked))
        return
    source = given.get("replace")
    if isinstance(source, tuple):
        given = given | {"replace": (run.names[source[0]], source[1])}
    elif source in run.names:
        given = given | {"replace": run.names[source]}
    truth = residscope.ablate(run.cache, PAIR, progress=False, **given)
    reply, [total, direct, estimate] = measured(run, MeasureEffects(run.target, prompt=prompt, **asked))
    which = (lambda values: values.nanmean(-1)) if prompt is None else (lambda values: values[..., prompt])
    np.testing.assert_allclose(total, sign * which(truth.total), atol=1e-5)
    np.testing.assert_allclose(direct, sign * which(truth.direct), atol=1e-5)
    guess = residscope.estimate(run.cache, given.get("replace", "zero"), PAIR, position=given.get("position", "last"))
    np.testing.assert_allclose(estimate, sign * which(guess.effects), atol=1e-5)
    assert (reply.state, reply.done, reply.turn) == ("done", reply.total, None)
    assert reply.before == pytest.approx(float(which(truth.before)), abs=1e-5)
    before = f"{reply.before:+.2f}".replace("-", "−")
    own = truth.replayed if prompt is None else f"an unchanged run gives {before}, as in the cache"
    assert reply.replayed == own


def test_the_stream_at_each_position(run):
    truth = residscope.patch(run.cache, run.other, PAIR, at="resid_pre", positions="each", position=4, progress=False)
    request = MeasureEffects(run.target, "stream", "other", Against("other"), prompt=1, position=4)
    _, [total, direct, estimate] = measured(run, request)
    np.testing.assert_allclose(total[:, :5], truth.effects[..., 1][:, :5], atol=1e-5)
    assert np.isnan(total[:, 5:]).all()  # positions after that of the target
    assert not np.isnan(estimate[:, :5]).any()
    assert np.isnan(direct).all()


def test_the_largest_estimates_are_measured_first(run, monkeypatch):
    monkeypatch.setattr("residscope.serving.measuring.TURN", 0.0)
    request = MeasureEffects(run.target)
    seen: list[int] = []
    reply, [total, *_] = ask(run, request)
    while reply.state == "waiting":
        turns.take(reply.turn)
        reply, [total, *_] = ask(run, request)
        known = [] if total is None else np.flatnonzero(~np.isnan(total)).tolist()
        seen += [at for at in known if at not in seen]
    guess = residscope.estimate(run.cache, "zero", PAIR).effects
    size = guess.abs().mean(-1).flatten()  # the size counts even if the signs of prompts differ
    n_heads = run.model.cfg.n_heads
    assert seen[0] // n_heads == int(size.argmax()) // n_heads  # heads of one layer are measured together


def test_the_model_is_run_only_in_a_turn(run):
    request = MeasureEffects(run.target)
    with calls(run) as counted:
        reply, [total, *_] = ask(run, request)
        assert (reply.state, reply.total, total) == ("waiting", 0, None)
        thread = threading.Thread(target=turns.take, args=(reply.turn,))
        thread.start()
        thread.join()
        assert ask(run, request, gives_turns=False)[0].done == 0  # no turn is granted here
        run.service.reply(WritePage(Shown(run.target, effect="total")))
        turns.take("no such turn")
        assert counted == []
        with turns.granted():
            ask(run, request, gives_turns=False)
        assert counted


def test_a_stop_that_comes_during_a_turn_ends_it(run):
    """The stop comes on another thread, as from a sidebar. The hooks of the run do not count as a change."""
    request = MeasureEffects(run.target)
    turn = ask(run, request)[0].turn
    block, threads = run.model.blocks[1], []

    def stop(module, *_):
        if module is block and not threads:
            threads.append(
                threading.Thread(target=ask, args=(run, msgspec.structs.replace(request, measure=False, stop=True)))
            )
            threads[0].start()
            threads[0].join(1)  # the request waits for the lock of this turn, but has already stopped the turn

    handle = register_module_forward_hook(stop)
    turns.take(turn)
    handle.remove()
    threads[0].join()
    with calls(run) as counted:
        turns.take(turn)
        assert counted == []
    assert ask(run, msgspec.structs.replace(request, measure=False, stop=True))[0].state == "stopped"


def test_a_stopped_measurement_goes_on_where_it_stopped(run, monkeypatch):
    monkeypatch.setattr("residscope.serving.measuring.TURN", 0.0)
    request = MeasureEffects(run.target)
    while ask(run, request)[0].done == 0:
        turns.take(ask(run, request)[0].turn)
    stop = msgspec.structs.replace(request, measure=False, stop=True)
    reply, [total, *_] = ask(run, stop)
    assert (reply.state, reply.turn) == ("stopped", None)
    assert 0 < reply.done < reply.total == np.isfinite(total).size
    with calls(run) as counted:
        assert ask(run, stop)[0].done == reply.done
        assert counted == []
    reply, [after, *_] = measured(run, request)
    assert reply.done == reply.total
    known = ~np.isnan(total)
    assert np.array_equal(after[known], total[known])


def test_effects_of_all_prompts_are_not_measured_again_for_one_prompt(run):
    measured(run, MeasureEffects(run.target))
    with calls(run) as counted:
        reply, _ = ask(run, MeasureEffects(run.target, prompt=1))
        assert (reply.state, reply.prompts, counted) == ("done", 1, [])


def test_a_change_between_two_turns_ends_the_measurement_with_a_reason(run):
    request = MeasureEffects(run.target)
    turn = ask(run, request)[0].turn
    turns.take(turn)
    with torch.no_grad():
        run.model.blocks[1].attn.o.weight.mul_(1.5)
    turns.take(turn)  # a turn that was requested for the old weights
    with pytest.raises(residscope.ResidscopeError, match="weights were changed"):
        measured(run, request)


def test_an_exception_or_an_interrupt_leaves_nothing_behind(run, caplog):
    def state():
        return torch.is_grad_enabled(), torch.get_rng_state().tolist(), hook_state(run.model)

    before = state()
    fails = [RuntimeError("mine"), KeyboardInterrupt()]

    def hook(*_):
        if fails:
            raise fails[0]

    handle = run.model.blocks[1].register_forward_hook(hook)
    request = MeasureEffects(run.target)
    with pytest.raises(residscope.ResidscopeError, match="RuntimeError: mine"):
        measured(run, request)
    [record] = [one for one in caplog.records if one.name == "residscope" and one.levelname == "ERROR"]
    assert record.exc_info is not None
    assert record.exc_info[1] is fails[0]
    fails.pop(0)
    handle.remove()
    handle = run.model.blocks[1].register_forward_hook(hook)  # a new hook, so the run counts as another run
    assert measured(run, request)[0].state == "stopped"
    handle.remove()
    assert state() == before
    assert measured(run, request)[0].state == "done"


@pytest.mark.parametrize("by", ["zero", "mean"])
def test_a_run_without_heads_is_the_second_run_of_a_comparison(run, by):
    heads = {0: 1, 1: 2}

    def hook(z, hook):
        head = heads[int(hook.name.split(".")[1])]
        z = z.clone()
        z[:, :, head] = 0 if by == "zero" else run.cache[hook.name][:, :, head].mean(0)
        return z

    against = Against(without=["L0H1", "1.2"], replaced_by=by)
    compare = Compare("head", run.target, against, None)
    with pytest.raises(residscope.ResidscopeError) as error:
        run.service.reply(compare)
    assert error.value.code == "run-first"
    reply = run.service.reply(RunWithout(against), gives_turns=True)[0]
    while reply.state == "waiting":
        turns.take(reply.turn)
        reply = run.service.reply(RunWithout(against), gives_turns=True)[0]
    assert reply.replayed == "an unchanged run gives the cached values"
    for layer in heads:
        run.model.hook_dict[f"blocks.{layer}.attn.hook_z"].add_hook(hook)
    with torch.no_grad():
        _, truth = run.model.run_with_cache(run.tokens)
    run.model.reset_hooks()
    kept = residscope.without(run.cache, ["L0H1", (1, 2)], replace=by)
    assert type(kept) is type(run.cache)
    assert set(kept.keys()) == set(run.cache.keys())
    assert all(torch.equal(kept[name], truth[name]) for name in list(run.cache.keys()))
    expected = residscope.compare(run.cache, truth, PAIR)
    reply, buffers = run.service.reply(compare)
    assert reply.second.measured == pytest.approx(float(expected.second.measured.mean()), abs=1e-5)
    written = np.frombuffer(buffers[2], np.float32)[: expected.parts]
    np.testing.assert_allclose(written, expected.written.mean(-1)[: expected.parts], atol=1e-5)
    map_reply, _ = run.service.reply(CompareAttention(1, 2, against, 0))
    assert len(map_reply.parts) == 3
    run.service.reply(RunWithout(Against()))  # ends the comparison, so that its run is released
    with pytest.raises(residscope.ResidscopeError, match="run again"):
        run.service.reply(compare)


OTHER = {"replaced_by": "other", "against": Against("other", 2), "prompt": 0, "run": "first"}


@pytest.mark.parametrize(
    ("shown", "kind"),
    [
        ({"effect": "total"}, "heads"),
        ({"effect": "indirect", "replaced_by": "mean", "prompt": 1}, "heads"),
        ({"effect": "estimate"}, "heads"),
        (OTHER | {"effect": "total"}, "heads"),
        (OTHER | {"effect": "total"}, "runs"),
        ({"effect": "total"}, "stream"),
        ({"replaced_by": "mean", "prompt": 1}, "stream"),
        (OTHER | {"run": "difference"}, "stream"),
        ({"against": Against("other"), "prompt": 1}, "stream"),  # in a comparison, the stream is that of the other run
        ({"effect": "total", "top_k": 2}, "ranking"),
        ({"effect": "estimate", "prompt": 1, "top_k": 2}, "ranking"),
        ({"effect": "total", "top_k": 12}, "ranking"),  # fewer heads of each sign than `top_k`
        ({"effect": "total", "prompt": 1}, "runs"),
        ({"against": Against(without=["L0H1"])}, "heads"),
    ],
)
def test_the_code_of_a_picture_gives_its_values(run, shown, kind):
    code = run.service.reply(WriteCode(kind, Shown(run.target, **shown)))[0].code
    names = dict(run.names)
    exec(code.replace("\nfigure\n", "\n"), names)
    assert names["figure"].data
    if "against" in shown and "effect" not in shown and kind == "heads":
        return
    of_stream = kind == "stream"
    by = "other" if of_stream and "against" in shown else shown.get("replaced_by", "zero")
    request = MeasureEffects(
        run.target, "stream" if of_stream else "heads", by, shown.get("against"), shown.get("prompt")
    )
    _, [total, direct, estimate] = measured(run, request)
    grid = {"total": total, "estimate": estimate, "indirect": total - direct}[shown.get("effect", "total")]
    assert ("minus the effect" in code) == (by != "other")
    assert ("is that of the other run" in code) == (by == "other")
    if kind in ("heads", "stream"):
        np.testing.assert_allclose(names["values"], grid, atol=1e-5)
        drawn = np.array(names["figure"].data[0].z, dtype=float)  # plotly keeps cells without a number as None
        np.testing.assert_allclose(drawn, grid, atol=1e-5)
    elif kind == "runs":
        np.testing.assert_allclose(names["values"], np.stack([direct, total]), atol=1e-5)
        dots = names["figure"].data[1]
        np.testing.assert_allclose([dots.x, dots.y], [direct.ravel(), total.ravel()], atol=1e-5)
    else:
        order, k = np.sort(grid.ravel()), shown["top_k"]
        ranked = [*order[order > 0][::-1][:k], *order[order < 0][:k]]  # as `rank` in widgets/src/state/ranked.ts
        np.testing.assert_allclose([value for _, value in names["values"]], ranked, atol=1e-5)


def test_another_cache_of_the_same_name_is_measured_again(run):
    request = MeasureEffects(run.target, replaced_by="other", against=Against("other"))
    first = measured(run, request)[1][0]
    with torch.no_grad():
        _, run.names["other"] = run.model.run_with_cache(run.tokens.roll(2, 1))
    assert ask(run, request)[0].state == "waiting"
    truth = residscope.ablate(run.cache, PAIR, replace=run.names["other"], progress=False).total.mean(-1)
    second = measured(run, request)[1][0]
    np.testing.assert_allclose(second, truth, atol=1e-5)
    assert np.abs(second - first).max() > 1e-2


def test_a_failed_request_is_tried_again_when_it_is_sent_again(run):
    request = MeasureEffects(run.target, replaced_by="other", against=Against("later"))
    with pytest.raises(residscope.ResidscopeError, match="no activation cache `later`"):
        measured(run, request)
    run.names["later"] = run.other
    assert measured(run, request)[0].state == "done"


def test_the_stream_has_no_effect_at_padding(run):
    tokens = run.tokens.clone()
    tokens[0, -3:] = 0
    with torch.no_grad():
        _, cache = run.model.run_with_cache(tokens)
        _, run.names["other"] = run.model.run_with_cache(tokens.roll(1, 0))
    run.service = Service(cache)
    request = MeasureEffects(run.target, "stream", "other", Against("other"))
    truth = residscope.patch(cache, run.names["other"], PAIR, at="resid_pre", positions="each", progress=False)
    reply, [total, *_] = measured(run, request)
    np.testing.assert_allclose(total, truth.effects.nanmean(-1), atol=1e-5)
    assert any(note.startswith("In 1 of 3 prompts (0) some positions are padding.") for note in reply.notes)
    assert np.isnan(measured(run, msgspec.structs.replace(request, prompt=0))[1][0][:, -3:]).all()


def test_a_stop_during_the_preparation_loses_nothing(run, monkeypatch):
    from residscope.causes.sweep import Sweep
    from residscope.compute.progress import WorkCancelledError

    request, usual, left = MeasureEffects(run.target), Sweep.directs, [1]

    def cancelled(self, patches):
        if left:
            left.pop()
            raise WorkCancelledError
        return usual(self, patches)

    monkeypatch.setattr(Sweep, "directs", cancelled)
    assert measured(run, request)[0].state == "stopped"
    reply, [_, _, estimate] = measured(run, request)
    assert (reply.state, reply.done) == ("done", reply.total)
    assert not np.isnan(estimate).any()


def test_a_change_of_a_value_that_a_hook_reads_is_refused(run, monkeypatch):
    monkeypatch.setattr("residscope.serving.measuring.TURN", 0.0)
    scale = [1.0]
    run.model.blocks[1].register_forward_hook(lambda _m, _a, output: _scaled(output, scale[0]))
    request = MeasureEffects(run.target)
    while ask(run, request)[0].done == 0:
        turns.take(ask(run, request)[0].turn)
    scale[0] = 2.0
    with pytest.raises(residscope.ResidscopeError, match="does not give the cached activations"):
        measured(run, request)


def _scaled(output, factor):
    return (output[0] * factor, *output[1:]) if isinstance(output, tuple) else output * factor


def test_a_request_for_known_effects_stops_no_measurement(run):
    request = MeasureEffects(run.target)
    turns.take(ask(run, request)[0].turn)
    assert ask(run, msgspec.structs.replace(request, measure=False))[0].state != "stopped"
    run.service.reply(WritePage(Shown(run.target, effect="total")))
    assert measured(run, request)[0].state == "done"


def test_a_run_without_heads_stays_while_effects_are_measured(run):
    against = Against(without=["L0H1"])
    while (reply := run.service.reply(RunWithout(against), gives_turns=True)[0]).state == "waiting":
        turns.take(reply.turn)
    for position in range(1, 7):
        ask(run, MeasureEffects(run.target, position=position))
    assert run.service.reply(Compare("head", run.target, against, 0))[0].second.measured is not None
