"""Connects hosts (JupyterLab, VS Code, marimo) to the kernel: by a widget, a comm, or executed code."""
