"""What leaves Residscope: figures, CircuitsVis' views, the Python code for what is shown, a page of its own.

Nothing here is imported before it is asked for: plotly and CircuitsVis are optional.
"""
