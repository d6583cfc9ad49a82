"""Figures of the project, each with its baseline and the floor of its metric: ``python -m benchmarks.NAME``."""
