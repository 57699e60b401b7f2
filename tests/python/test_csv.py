"""An attribution as a table that other programs read."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace

import numpy as np
import pytest

import residscope
from tests.support import tiny


@pytest.fixture(scope="module")
def llama():
    model = tiny.boot("llama")
    return SimpleNamespace(model=model, cache=tiny.run(model)[2])


def test_a_table_as_csv(llama, tmp_path):
    result = residscope.attribute(llama.cache, ("w5", "w9"), by="layer")
    result.to_csv(tmp_path / "layers.csv")
    head, *rows = csv.reader(io.StringIO((tmp_path / "layers.csv").read_text()))
    assert head == ["component", "0", "1", "2"]
    assert [row[0] for row in rows] == result.labels
    np.testing.assert_allclose(np.array([row[1:] for row in rows], dtype=float), result.values, rtol=1e-6)
    assert result.to_csv() == (tmp_path / "layers.csv").read_text()
