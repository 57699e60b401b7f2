"""A thousand runs with replaced activations, of which a hundred end early, change no hooks, settings or memory."""

from __future__ import annotations

import ctypes
import gc
import random
import signal
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy
import pytest
import torch

import residscope
from residscope.causes import hooks as own_hooks
from residscope.compute.progress import WorkCancelledError, set_listener
from tests.support import tiny

RUNS, ENDED, MEGABYTES = 1000, 100, 5
ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])


class UsersError(Exception):
    """An error in a hook of the user."""


@pytest.fixture(autouse=True)
def one_thread():
    """One thread for PyTorch. (The tensors are tiny, so several threads would only wait for each other.)"""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def raising(kind, error, after, model):
    """End a call early: by a signal at a random moment, by the user's hook, or by cancelling it."""
    count, handle = [0], None

    def step(*_):
        count[0] += 1
        if count[0] == after:
            raise error

    if kind == "interrupt":
        signal.setitimer(signal.ITIMER_REAL, after / 1000)
    elif kind == "hook":
        handle = model.blocks[1].mlp.register_forward_hook(step)
    elif kind == "cancel":
        listener = type("Listener", (), {"step": step})()
        set_listener(listener)
    try:
        yield
    finally:
        if kind == "interrupt":
            signal.setitimer(signal.ITIMER_REAL, 0)
        elif handle is not None:
            handle.remove()
        elif kind == "cancel":
            set_listener(None)


def settings(model):
    """The state that a run must not change."""
    hooks = [
        (name, kind, len(held))
        for name, module in model.named_modules()
        for kind, held in vars(module).items()
        if "hooks" in kind and hasattr(held, "__len__")
    ]
    attributes = [
        (name, key, value if isinstance(value, bool | int | float | str) else id(value))
        for name, module in model.named_modules()
        for key, value in sorted(vars(module).items())
    ]
    return {
        "hooks": hooks,
        "attributes": attributes,
        "parameters": [(name, id(weight), weight._version) for name, weight in model.named_parameters()],
        "gradients": [weight.grad for weight in model.parameters()],
        "threads": [thread.name for thread in threading.enumerate()],
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()),
        "dtype": torch.get_default_dtype(),
        "random": (torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist()),
        "threads of torch": torch.get_num_threads(),
        "ours": list(own_hooks.alive()),
    }


def changes(before, now):
    """Return the names of the settings that differ, and for lists also up to three pairs of entries that differ."""
    listed = []
    for name, value in before.items():
        if now[name] != value:
            pairs = zip(value, now[name], strict=False) if isinstance(value, list) else []
            listed += [name, *[pair for pair in pairs if pair[0] != pair[1]][:3]]
    return listed


def memory():
    """Return the memory of this process and that of all live dense tensors, in bytes."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # returns free memory to the system, so that it is not counted
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    storages = {
        thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes()
        for thing in gc.get_objects()
        if issubclass(type(thing), torch.Tensor) and thing.layout is torch.strided  # sparse tensors have no storage
    }
    return pages * 4096, sum(storages.values())


def calls(cache, source, tokens):
    """Return the calls that the test makes in turn."""
    quiet = {"progress": False}
    return [
        lambda: residscope.ablate(cache, ANSWERS, ["0.1", "2.3"]),
        lambda: residscope.ablate(cache, ANSWERS, positions="last", **quiet),
        lambda: residscope.patch(cache, source, ANSWERS, at="mlp_out", **quiet),
        lambda: residscope.estimate(cache, source, ANSWERS),
        lambda: residscope.ablate(cache, ANSWERS, ["1.0", "1.1"], replace=tokens.flip(1), together=True, **quiet),
        lambda: residscope.patch(cache, source, ANSWERS, at="resid_pre", positions="each", **quiet),
        lambda: residscope.effects(cache, "zero", ANSWERS, measure=2, **quiet),
        lambda: residscope.ablate(cache, ANSWERS, "L2H0", replace="mean", norm="recomputed", **quiet),
    ]


class Endurance:
    """Makes calls one after another, and ends some of them early."""

    def __init__(self, model, made, seed):
        self.model, self.made, self.dice = model, made, random.Random(seed)
        self.ended = dict.fromkeys((KeyboardInterrupt, UsersError, WorkCancelledError), 0)
        for thread in threading.enumerate():
            if thread.name.startswith("residscope"):  # a thread of an earlier test, which ends soon
                thread.join(30)
        self.before = settings(model)
        self.durations = [self._taken(call) for call in made * 2][len(made) :]

    def _taken(self, call):
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    def go(self, runs, ended):
        """Make `runs` calls, of which `ended` end early. Check the settings after each call that ended early."""
        kinds, left = ["interrupt", "hook", "cancel"], ended
        for number in range(runs):
            at = number % len(self.made)
            # More interruptions are tried than needed, because an interrupt may come after the end of the call.
            kind = kinds[number % 3] if left and self.dice.random() < 2 * ended / runs else None
            error = {"hook": UsersError("mine"), "cancel": WorkCancelledError()}.get(kind)
            after = 1000 * self.durations[at] * self.dice.random() if kind == "interrupt" else self.dice.randint(1, 5)
            stopped = None
            try:
                with raising(kind, error, after, self.model):
                    self.made[at]()
            except tuple(self.ended) as raised:
                stopped = type(raised)
            if stopped is not None:
                self.ended[stopped] += 1
                left -= 1
                assert changes(self.before, settings(self.model)) == [], (number, stopped)
        assert left == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no `setitimer` on this system")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no `/proc/self/statm` on this system")
def test_after_a_thousand_runs_a_hundred_of_them_ended_early_nothing_is_left():
    model = tiny.boot("native")
    tokens, logits, cache = tiny.run(model)
    with torch.no_grad():
        source = model.run_with_cache(tokens.flip(1))[1]

    def interrupt(*_):
        raise KeyboardInterrupt

    usual = signal.signal(signal.SIGALRM, interrupt)
    try:
        endurance = Endurance(model, calls(cache, source, tokens), seed=11)
        endurance.go(80, 30)  # so that everything that is made only once exists before `held` is measured
        held = memory()
        endurance.go(RUNS, ENDED)
        left = memory()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
    assert min(endurance.ended.values()) > ENDED // 10, endurance.ended
    assert changes(endurance.before, settings(model)) == []
    assert left[1] <= held[1]
    assert abs(left[0] - held[0]) < MEGABYTES * 1e6, [(b - a) / 1e6 for a, b in zip(held, left, strict=True)]
    with torch.no_grad():
        assert torch.equal(model(tokens), logits)


def test_an_interrupt_that_waited_keeps_nothing_in_memory():
    waiting, kept = [KeyboardInterrupt()], torch.zeros(1)
    alive = weakref.ref(kept)

    def work(given=kept):
        if waiting:
            raise waiting.pop()
        return given

    del kept
    gc.collect()
    gc.disable()
    try:
        with suppress(KeyboardInterrupt):
            own_hooks.surely(work)
            pytest.fail("the interrupt was lost")
        del work
        assert alive() is None
    finally:
        gc.enable()


def test_hooks_are_removed_even_after_an_interrupt_just_before_their_removal(monkeypatch):
    model = tiny.boot("native")
    _, _, cache = tiny.run(model)
    residscope.ablate(cache, ANSWERS, "L0H1", progress=False)
    before, usual, calls_of_surely = settings(model), own_hooks.surely, [0]

    def interrupted(work):
        calls_of_surely[0] += 1
        if calls_of_surely[0] == 2:
            raise KeyboardInterrupt
        return usual(work)

    monkeypatch.setattr(own_hooks, "surely", interrupted)
    with pytest.raises(KeyboardInterrupt):
        residscope.ablate(cache, ANSWERS, "L0H1", progress=False)
    assert changes(before, settings(model)) == []
