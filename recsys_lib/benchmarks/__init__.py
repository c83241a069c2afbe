"""Measurements of speed and memory, each a module to run: ``python -m recsys_lib.benchmarks.<name>``."""
