"""The demo model's run for the notebooks of tests. `nursery.py` imports this module once for many kernels."""

from residscope import demo

run = demo.ioi()
