"""Every tensor has the shape of its annotation. Some other tests are run again with a check of shapes.

The check makes each call slower, so these are separate runs. `RESIDSCOPE_SHAPES=1 pytest …` adds the check to any test.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
RUNS = {
    "properties": [f"{HERE}/test_properties.py"],
    "families": [f"{HERE}/test_families.py", "-k", "gpt2 or falcon-alibi or gemma3 or lfm2 or laguna or nemotron_h"],
    "attention": [f"{HERE}/test_attention.py"],
}
WRONG = """
from tests.support.shapes import check_shapes
check_shapes()
import pytest, torch
from jaxtyping import TypeCheckError
from residscope.attribution.plan import Rows
from residscope.compute.projection import dots
dots(torch.ones(2, 3, 4), torch.ones(2, 4))
for wrong in (lambda: dots(torch.ones(2, 3, 4), torch.ones(3, 4)), lambda: Rows([], torch.ones(2))):
    with pytest.raises(TypeCheckError):
        wrong()
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"RESIDSCOPE_SHAPES": "1"}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)


def test_a_wrong_shape_is_noticed():
    done = run("-c", WRONG)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("files", RUNS.values(), ids=RUNS)
def test_tensors_have_the_shapes_of_their_annotations(files):
    done = run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *files)
    assert done.returncode == 0, done.stdout[-5000:]
