"""Costs that have a name: each is one function and one registration."""

from __future__ import annotations

import jax.numpy as jnp

from scgenot._blocks import matmul
from scgenot.costs._cost import Block, Source, Target
from scgenot.costs._registry import register_cost

_TINY = 1e-12


@register_cost("sqeuclidean")
def _sqeuclidean(x: Source, y: Target) -> Block:
    """Squared Euclidean distance, without 1/2."""
    # The expansion |x|^2 + |y|^2 - 2 x'y loses digits far from the origin; distances do not change under a shift.
    centre = y.mean(axis=0)
    x, y = x - centre, y - centre
    squares = jnp.sum(x * x, axis=1)[:, None] + jnp.sum(y * y, axis=1)[None, :]
    return jnp.maximum(squares - 2.0 * matmul(x, y.T), 0.0)


@register_cost("euclidean")
def _euclidean(x: Source, y: Target) -> Block:
    return jnp.sqrt(_sqeuclidean(x, y))


@register_cost("cosine")
def _cosine(x: Source, y: Target) -> Block:
    """One minus the cosine of the angle: in [0, 2]."""
    return jnp.maximum(1.0 - matmul(_unit(x), _unit(y).T), 0.0)


@register_cost("pearson")
def _pearson(x: Source, y: Target) -> Block:
    """One minus the correlation across features: in [0, 2]."""
    return _cosine(x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True))


@register_cost("inner_product")
def _inner_product(x: Source, y: Target) -> Block:
    """Inner product; within populations only (quadratic problems)."""
    return matmul(x, y.T)


def _unit(x: Source) -> Source:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), _TINY)
