"""Solvers of others, for the comparison only: each module has ``fit(key, x, y, a=None, b=None, *, epsilon_b, ...)``; see README.md."""
