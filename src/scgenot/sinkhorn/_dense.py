"""Sinkhorn on a dense cost over epsilon, balanced or not, fast enough to be repeated hundreds of times."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from scgenot._blocks import matmul

# Iterations on exponentials in a round: one on logarithms costs as much as ten of them, so a round costs two. Many more would
# leave the range of single precision more often.
_SCALINGS = 10
ITERATIONS_PER_ROUND = 1 + _SCALINGS


def dense_sinkhorn(
    cost: Float[Array, "n m"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    u: Float[Array, " n"],
    v: Float[Array, " m"],
    taus: tuple[Float[Array, ""] | float, Float[Array, ""] | float],
    tolerance: Float[Array, ""] | float,
    rounds: Int[Array, ""] | int,
) -> tuple[Float[Array, " n"], Float[Array, " m"], Float[Array, ""]]:
    """Run rounds of Sinkhorn: one iteration on logarithms, then several on their exponentials.

    Matrix-vector products are an order of magnitude cheaper than sums of exponentials, and are safe as long as scalings
    stay near 1, which the iteration on logarithms sees to; where they do not, its result is kept.

    Parameters
    ----------
    cost
        Cost over epsilon.
    a, b
        Marginals.
    u, v
        Potentials (over epsilon) to start from; the plan is ``a_i b_j exp(u_i + v_j - cost_ij)``.
    taus
        How strictly each marginal is kept, in (0, 1].
    tolerance
        Rounds end when the row marginals are off by less than this.
    rounds
        Rounds at most.

    Returns
    -------
    Potentials, and the violation of the row marginals that the last round began with.
    """
    return dense_rounds(cost, a, b, u, v, taus, tolerance, rounds)[:3]


def dense_rounds(
    cost: Float[Array, "n m"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    u: Float[Array, " n"],
    v: Float[Array, " m"],
    taus: tuple[Float[Array, ""] | float, Float[Array, ""] | float],
    tolerance: Float[Array, ""] | float,
    rounds: Int[Array, ""] | int,
) -> tuple[Float[Array, " n"], Float[Array, " m"], Float[Array, ""], Int[Array, ""]]:
    """Do as :func:`dense_sinkhorn`, and return the number of rounds as well, of ``ITERATIONS_PER_ROUND`` iterations each."""
    log_a, log_b = jnp.log(a), jnp.log(b)
    tau_a, tau_b = taus

    def more(carry):
        return (carry[2] > tolerance) & (carry[3] < rounds)

    def one_round(carry):
        u, v, _, count = carry
        new_u = -tau_a * jax.nn.logsumexp(log_b[None, :] + v[None, :] - cost, axis=1)
        violation = jnp.sum(a * jnp.abs(jnp.expm1(jnp.clip(u - new_u, -20.0, 20.0))))
        new_v = -tau_b * jax.nn.logsumexp(log_a[:, None] + new_u[:, None] - cost, axis=0)
        ratio = jnp.exp(new_u[:, None] + new_v[None, :] - cost)
        # What a damped update leaves of the potential itself; 1 where a marginal is kept.
        kept_u, kept_v = jnp.exp((tau_a - 1.0) * new_u), jnp.exp((tau_b - 1.0) * new_v)

        def scale(_, scalings):
            rows = kept_u * matmul(ratio, b * scalings[1]) ** -tau_a
            return rows, kept_v * matmul(a * rows, ratio) ** -tau_b

        rows, columns = jax.lax.fori_loop(0, _SCALINGS, scale, (jnp.ones_like(a), jnp.ones_like(b)))
        safe = jnp.isfinite(rows).all() & jnp.isfinite(columns).all() & (rows > 0).all() & (columns > 0).all()
        rows, columns = jnp.where(safe, rows, 1.0), jnp.where(safe, columns, 1.0)
        return new_u + jnp.log(rows), new_v + jnp.log(columns), violation, count + 1

    return jax.lax.while_loop(more, one_round, (u, v, jnp.asarray(jnp.inf), jnp.asarray(0)))
