"""Tests, and what is started like them: benchmarks, documents that are written from a run, pictures, mutants."""
