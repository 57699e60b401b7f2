"""These tests run where an older TransformerLens is installed: `npm run test:versions` makes an environment for each.

What a release does not have is not collected: `HookedTransformer` left with 4.0, the bridge came with 3.0.
"""

import os
from importlib.metadata import version

import pytest

_INSTALLED = version("transformer-lens")
_MAJOR = int(_INSTALLED.split(".")[0])
_MEANT = os.environ.get("RESIDSCOPE_TRANSFORMER_LENS", _INSTALLED)
collect_ignore = (["test_hooked.py", "test_forms.py"] if _MAJOR >= 4 else []) + (
    ["test_bridge.py"] if _MAJOR < 3 else []
)

if _MEANT != _INSTALLED:
    pytest.exit(f"These tests are meant for TransformerLens {_MEANT}, and {_INSTALLED} is installed.", returncode=1)


def pytest_configure(config) -> None:
    """Leave out what every test would say."""
    config.addinivalue_line("filterwarnings", "ignore:HookedTransformer is deprecated:DeprecationWarning")
    config.addinivalue_line("filterwarnings", "ignore:The 'move_model' parameter:DeprecationWarning")
