"""The messages between a view and the kernel, and their envelope."""
