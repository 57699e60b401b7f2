"""The small models of the Python tests are these tests' models, too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))  # tiny.py
