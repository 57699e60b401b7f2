"""Connects a host to the kernel: by a widget, a comm, or executed code. No mathematics."""
