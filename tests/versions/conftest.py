"""Tests for older releases of TransformerLens. `npm run test:versions` makes an environment for each release.

Tests of classes that a release does not have are not collected: 4.0 has no `HookedTransformer`, 2.x has no bridge.
"""

import os
from importlib.metadata import version

import pytest

_INSTALLED = version("transformer-lens")
_MAJOR = int(_INSTALLED.split(".")[0])
_EXPECTED = os.environ.get("RESIDSCOPE_TRANSFORMER_LENS", _INSTALLED)
collect_ignore = (
    (["test_sae_lens.py"] if _MAJOR != 3 else [])  # only the environments of 3.x have SAELens
    + (["test_hooked.py", "test_hooked_causes.py", "test_forms.py"] if _MAJOR >= 4 else [])
    + (["test_bridge.py"] if _MAJOR < 3 else [])
)

if _EXPECTED != _INSTALLED:
    pytest.exit(f"These tests are for TransformerLens {_EXPECTED}, but {_INSTALLED} is installed.", returncode=1)


def pytest_configure(config) -> None:
    """Ignore warnings that every test would raise."""
    config.addinivalue_line("filterwarnings", "ignore:HookedTransformer is deprecated:DeprecationWarning")
    config.addinivalue_line("filterwarnings", "ignore:The 'move_model' parameter:DeprecationWarning")
