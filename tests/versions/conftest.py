"""These tests run where an older TransformerLens is installed: `npm run test:versions` makes an environment for each.

Tests of what a release lacks are not collected: 4.0 has no `HookedTransformer`, and only 3.0 and later have the bridge.
"""

import os
from importlib.metadata import version

import pytest

_INSTALLED = version("transformer-lens")
_MAJOR = int(_INSTALLED.split(".")[0])
_EXPECTED = os.environ.get("RESIDSCOPE_TRANSFORMER_LENS", _INSTALLED)
collect_ignore = (
    (["test_sae_lens.py"] if _MAJOR != 3 else [])
    + (["test_hooked.py", "test_hooked_causes.py", "test_forms.py"] if _MAJOR >= 4 else [])
    + (["test_bridge.py"] if _MAJOR < 3 else [])
)
collect_ignore += [] if _MAJOR == 3 else ["test_sae_lens.py"]  # SAELens is installed beside this release only

if _EXPECTED != _INSTALLED:
    pytest.exit(f"These tests are for TransformerLens {_EXPECTED}, but {_INSTALLED} is installed.", returncode=1)


def pytest_configure(config) -> None:
    """Ignore warnings that every test would give."""
    config.addinivalue_line("filterwarnings", "ignore:HookedTransformer is deprecated:DeprecationWarning")
    config.addinivalue_line("filterwarnings", "ignore:The 'move_model' parameter:DeprecationWarning")
