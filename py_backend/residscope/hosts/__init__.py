"""How a host reaches the kernel: a widget, a comm, executed code. No mathematics."""
