"""A model, a task and an example notebook, which need no model hub.

Importing this package does not load torch or transformer_lens. Calling `ioi` or `load` does.
"""

from __future__ import annotations

from residscope.demo.errors import DemoError
from residscope.demo.ioi import Ioi, ioi, load
from residscope.demo.model import demo_model_folder

__all__ = ["DemoError", "Ioi", "demo_model_folder", "ioi", "load"]
