"""A device without float64 and float8 (Apple's GPUs) gives the values of the CPU. See `tests/support/toy_gpu.py`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch.utils import backend_registration

from residscope.compute import precision

FAMILIES = ("llama", "gemma2-cap-5", "falcon-alibi")  # rotary positions; soft-caps; a bias by distance


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"), reason="an older PyTorch"
)
def test_a_device_without_float64_gives_the_values_of_the_cpu():
    command = [sys.executable, "-m", "tests.support.toy_gpu", *FAMILIES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(FAMILIES)
    wrong = {
        f"{family}: {name}": difference
        for family, results in found.items()
        for name, difference in results.items()
        if isinstance(difference, str) or difference > 2e-6
    }
    assert not wrong


def test_where_a_device_has_float64_it_is_used_there_without_a_copy():
    assert precision.widest(torch.device("cuda:1")) == precision.widest(torch.device("cpu")) == torch.float64
    assert precision.widest(torch.device("mps")) == torch.float32
    exact = torch.randn(3, dtype=torch.float64)
    assert precision.in_float64(exact) is exact
    on_meta = precision.in_float64(torch.empty(3, device="meta"))  # `meta` stands for any other device
    assert (on_meta.device.type, on_meta.dtype) == ("meta", torch.float64)
