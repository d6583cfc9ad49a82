"""Couplings without training: closed forms, independent solvers, and data whose true pairing is known.

Nothing looks at a label or a pairing before scoring, targets are shuffled, and starts and settings are the package's own
unless a table says otherwise. Times include all starts; the first of each shape includes compilation.
"""
