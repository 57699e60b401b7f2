"""Python's switch interval is short while a request is answered, and afterwards as the user has set it."""

from __future__ import annotations

import os
import sys
import time

import pytest

from residscope.compute import switch_interval as room
from residscope.compute.switch_interval import AFTERWARDS_INTERVAL, ANSWERING_INTERVAL, switching_often


@pytest.fixture(autouse=True)
def usual(monkeypatch):
    wait()
    monkeypatch.setattr(room, "AFTERWARDS_SECONDS", 0.1)
    before = sys.getswitchinterval()
    yield before
    wait()
    sys.setswitchinterval(before)


def wait():
    end = time.monotonic() + 5
    while room._usual_interval is not None and time.monotonic() < end:
        time.sleep(0.02)
    assert room._usual_interval is None


def test_the_interval_is_short_during_the_work_and_the_usual_one_afterwards(usual):
    def meanwhile() -> None:
        assert sys.getswitchinterval() == pytest.approx(ANSWERING_INTERVAL)

    def twice() -> None:
        meanwhile()
        switching_often(lambda: None)
        meanwhile()

    switching_often(twice)
    assert sys.getswitchinterval() == pytest.approx(AFTERWARDS_INTERVAL)
    switching_often(meanwhile)
    wait()
    assert sys.getswitchinterval() == usual


def test_the_interval_is_restored_after_a_failure(usual):
    with pytest.raises(ZeroDivisionError):
        switching_often(lambda: 1 / 0)
    wait()
    assert sys.getswitchinterval() == usual


@pytest.mark.parametrize("nth", [1, 2])
def test_the_interval_is_restored_after_an_interrupt_at_any_change(usual, monkeypatch, nth):
    real, calls = sys.setswitchinterval, []

    def interrupted(seconds: float) -> None:
        real(seconds)
        calls.append(seconds)
        if len(calls) == nth:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "setswitchinterval", interrupted)
    with pytest.raises(KeyboardInterrupt):
        switching_often(lambda: None)
    wait()
    assert sys.getswitchinterval() == usual


def test_an_interval_that_the_user_sets_is_kept():
    switching_often(lambda: sys.setswitchinterval(0.25))
    wait()
    assert sys.getswitchinterval() == 0.25


def test_a_shorter_interval_is_kept():
    sys.setswitchinterval(1e-6)
    assert switching_often(sys.getswitchinterval) == pytest.approx(1e-6)
    wait()
    assert sys.getswitchinterval() == pytest.approx(1e-6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no `os.fork` on this system")
def test_a_forked_child_has_the_usual_interval(usual):
    def fork() -> int:
        child = os.fork()
        if child == 0:
            os._exit(0 if sys.getswitchinterval() == usual else 1)
        return child

    assert os.waitpid(switching_often(fork), 0)[1] == 0
