"""Exports: plotly figures, CircuitsVis views, Python code for the shown pictures, and stand-alone pages.

The modules are imported only when they are needed, because plotly and CircuitsVis are optional.
"""
