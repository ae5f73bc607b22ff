"""What the circuits of a trained in-context regression layer look like, in numbers.

Circuits are `KQ` `[..., h, D, D]` and `OV` `[..., h, n, D]` from `in_context_attention.circuits`,
d input coordinates, n = D - d responses. Everything works on NumPy arrays with leading axes (seeds,
times). Statements of the paper are about *active* heads: those with `|mu_h| > 0.1 max |mu|`.

Reference: arXiv 2503.12734, section 2.
"""

import numpy as np
from jaxtyping import Bool, Float

ACTIVE = 0.1


def key_query_scale(key_query: Float[np.ndarray, "*batch h D D"], dim: int):
    """omega_h: mean of the first d diagonal entries of KQ_h, `[..., h]`."""
    return np.diagonal(key_query, axis1=-2, axis2=-1)[..., :dim].mean(-1)


def output_scale(output_value: Float[np.ndarray, "*batch h n D"], dim: int):
    """mu_{h,n}: the entry of OV_h by which response n reads its own label, `[..., h, n]`."""
    return np.diagonal(output_value[..., dim:], axis1=-2, axis2=-1)


def active_heads(mu: Float[np.ndarray, "*batch h"]) -> Bool[np.ndarray, "*batch h"]:
    """Heads that carry more than a tenth of the largest output scale."""
    size = np.abs(mu)
    return size > ACTIVE * size.max(-1, keepdims=True)


def has_both_signs(mu: Float[np.ndarray, "*batch h"]) -> Bool[np.ndarray, "*batch"] | np.bool:
    """Whether active heads include a positive and a negative one: the run found the pair."""
    active = active_heads(mu)
    return (active & (mu > 0)).any(-1) & (active & (mu < 0)).any(-1)


def _over_active(values, active, reduce):
    """Reduces the head axis over active heads only."""
    return reduce(np.where(active, values, np.nan), axis=-1)


def diagonal_energy(
    key_query: Float[np.ndarray, "*batch h D D"], active: Bool[np.ndarray, "*batch h"], dim: int
):
    """Smallest share of an active head's KQ[:, :d] norm that lies on the diagonal, 0..1."""
    read = key_query[..., :dim]  # the query token ends in zeros: other columns do nothing
    diagonal = np.diagonal(read, axis1=-2, axis2=-1)
    energy = np.linalg.norm(diagonal, axis=-1) / np.linalg.norm(read, axis=(-2, -1))
    return _over_active(energy, active, np.nanmin)


def inhomogeneity(
    key_query: Float[np.ndarray, "*batch h D D"], active: Bool[np.ndarray, "*batch h"], dim: int
):
    """Largest std/|mean| of the KQ diagonal over active heads."""
    diagonal = np.diagonal(key_query, axis1=-2, axis2=-1)[..., :dim]
    return _over_active(diagonal.std(-1) / np.abs(diagonal.mean(-1)), active, np.nanmax)


def output_leak(
    output_value: Float[np.ndarray, "*batch h 1 D"], active: Bool[np.ndarray, "*batch h"], dim: int
):
    """Largest |OV entry on an input coordinate| / |mu| over active heads (one response)."""
    leak = np.abs(output_value[..., 0, :dim]).max(-1) / np.abs(output_value[..., 0, dim])
    return _over_active(leak, active, np.nanmax)


def signs_match(
    omega: Float[np.ndarray, "*batch h"],
    mu: Float[np.ndarray, "*batch h"],
    active: Bool[np.ndarray, "*batch h"],
) -> Bool[np.ndarray, "*batch"]:
    """Whether sign(omega_h) = sign(mu_h) for all active heads."""
    return (~active | (np.sign(omega) == np.sign(mu))).all(-1)


def imbalance(mu: Float[np.ndarray, "*batch h"]):
    """|sum mu| / sum |mu|: zero when positive and negative heads cancel."""
    return np.abs(mu.sum(-1)) / np.abs(mu).sum(-1)


def scale_spread(omega: Float[np.ndarray, "*batch h"], active: Bool[np.ndarray, "*batch h"]):
    """std/mean of |omega| over active heads."""
    size = np.abs(omega)
    return _over_active(size, active, np.nanstd) / _over_active(size, active, np.nanmean)


def gain(
    key_query: Float[np.ndarray, "*batch h D D"],
    output_value: Float[np.ndarray, "*batch h n D"],
    dim: int,
):
    """The matrix by which response n preconditions, `sum_h mu_{h,n} KQ_h[:d, :d]`."""
    return np.einsum(
        "...hn,...hij->...nij", output_scale(output_value, dim), key_query[..., :dim, :dim]
    )
