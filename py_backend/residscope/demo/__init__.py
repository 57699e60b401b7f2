"""A real model, a real task and an example notebook, without a model hub.

Importing this package loads neither torch nor transformer_lens; calling `ioi` or `load` does.
"""

from __future__ import annotations

from .errors import DemoError
from .ioi import Ioi, ioi, load
from .model import demo_model_folder

__all__ = ["DemoError", "Ioi", "demo_model_folder", "ioi", "load"]
