"""Runnable studies and benchmarks; each writes its results under `analyses/results/`."""
