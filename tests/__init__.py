"""Tests, and programs that are started in the same way: benchmarks, documents from runs, pictures, mutants."""
