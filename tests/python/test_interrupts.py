"""An interrupt at any moment is raised, and all settings are restored."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time

import pytest
import torch

import residscope
from residscope.compute import switch_interval
from residscope.errors import ResidscopeError
from residscope.serving import progress_bar
from residscope.serving.service import Service
from tests.support import tiny

TARGET = {"contrasts": [{"answer": [{"id": 5, "text": ""}], "distractor": []}]}
ASKS = [
    {"kind": "attribute", "by": "head", "target": TARGET},
    {"kind": "attention", "layer": 1, "head": 2, "target": TARGET},
    {"kind": "scores", "score": "entropy"},
    {"kind": "token-lens", "points": ["0_pre", "final_post"], "start": 0, "stop": 5, "target": TARGET},
    {"kind": "describe"},
]


@pytest.fixture(scope="module")
def cache():
    return tiny.run(tiny.boot("llama"))[2]


def state() -> list[object]:
    return [
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_num_threads(),
        [thread.name for thread in threading.enumerate() if thread.name == "residscope-work"],
    ]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no `setitimer` on this system")
def test_an_interrupt_at_any_moment_is_raised_and_changes_nothing(cache, monkeypatch):
    monkeypatch.setattr(switch_interval, "AFTERWARDS_SECONDS", 0.1)
    dice = random.Random(7)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # The signal of a timer acts on the main thread like Ctrl-C.
    usual, interval = signal.signal(signal.SIGALRM, interrupt), sys.getswitchinterval()
    before, raised, answered = state(), 0, 0
    try:
        for turn in range(300):
            served = Service(cache)
            question = {"id": str(turn), "ask": ASKS[turn % len(ASKS)]}
            start = time.perf_counter()
            served.answer(question)
            taken = time.perf_counter() - start
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1e-5, dice.random() * taken))
                fresh = Service(cache)
                fresh.answer(question)
                signal.setitimer(signal.ITIMER_REAL, 0)
                answered += 1
            except KeyboardInterrupt:
                raised += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert state() == before
            served.answer(question)  # this call would block if a lock had stayed locked
            fresh = None
    finally:
        signal.signal(signal.SIGALRM, usual)
    assert raised > 100
    end = time.monotonic() + 10
    while sys.getswitchinterval() != interval and time.monotonic() < end:
        time.sleep(0.05)
    assert sys.getswitchinterval() == interval


def test_closing_a_panel_ends_the_work_for_its_page(cache, monkeypatch):
    panel = residscope.inspect(cache, 5, show=False)
    held, reached = threading.Event(), threading.Event()
    usual = Service._answer_once

    def slowly(self: Service, ask: object) -> object:
        reached.set()
        assert held.wait(20)
        return usual(self, ask)  # type: ignore[arg-type] (one of the requests)

    monkeypatch.setattr(Service, "_answer_once", slowly)

    def close() -> None:
        assert reached.wait(20)
        panel.close()
        held.set()

    threading.Thread(target=close).start()
    with pytest.raises(ResidscopeError, match="closed"):
        panel.to_html()


def test_progress_is_shown_if_the_work_takes_long(cache, monkeypatch, capsys):
    panel = residscope.inspect(cache, 5, show=False)
    monkeypatch.setattr(progress_bar, "AFTER", 60.0)
    panel.to_html(holds="all")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress_bar, "AFTER", 0.0)
    monkeypatch.setattr("residscope.serving.jobs.MOMENT", 0.001)
    panel.to_html(holds="all", progress=False)
    assert capsys.readouterr().err == ""
    panel.to_html(holds="all")
    assert "to_html" in capsys.readouterr().err


def test_the_argument_holds_decides_the_size_of_a_page_and_wrong_values_are_refused(cache):
    panel = residscope.inspect(cache, 5, show=False)
    sizes = [len(panel.to_html(holds=holds)) for holds in ("view", "heads", "all")]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]
    with pytest.raises(ResidscopeError, match='use "view", "heads", "all"'):
        panel.to_html(holds="everything")
