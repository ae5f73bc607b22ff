"""Directed connectivity from a vector autoregression: DTF, PDC, coherences, direct DTF.

    x_t = sum_k A_k x_{t-k} + e_t,   e ~ (0, Sigma);     A_k[i, j] is the effect of j on i

    a(f) = I - sum_k A_k exp(-2 pi i f k),  H = a^-1,  S = H Sigma H^*,  G = S^-1 = a^* Sigma^-1 a

All measures but the direct DTF are squared; all are indexed `[..., sink, source]`, and frequencies
are in cycles a sample. Two things that are easily taken for granted do not hold. DTF, PDC,
full-frequency DTF and direct DTF change with the unit of a channel: standardise first, or take the
generalised ones. And direct DTF is no test of directness: where a path i -> k -> j exists and a
common child makes i and j partially coherent, it is not 0 though there is no link; PDC is.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Complex, Float

from jattn.checks import check_shape

Squared = Float[Array, "f m m"]


class Spectra(NamedTuple):
    """What the measures are made of, `[f, m, m]` each.

    Attributes:
        coefficients: a(f).
        transfer: H, its inverse.
        cross_spectrum: S, two-sided and without a factor for the sampling rate.
        inverse_spectrum: G, its inverse.
    """

    coefficients: Complex[Array, "f m m"]
    transfer: Complex[Array, "f m m"]
    cross_spectrum: Complex[Array, "f m m"]
    inverse_spectrum: Complex[Array, "f m m"]


def spectral(
    coefficients: Float[Array, "p m m"],
    covariance: Float[Array, "m m"],
    frequencies: Float[Array, " f"],
) -> Spectra:
    """The spectra of a vector autoregression; see the module.

    Args:
        coefficients: A, from lag 1 on.
        covariance: Sigma, of the noise.
        frequencies: in cycles a sample, 0 to 0.5.

    Raises:
        ValueError: shapes that do not fit, or a covariance that is not positive definite.

    Example:
        >>> one = spectral(jnp.array([[[0.5]]]), jnp.eye(1), jnp.zeros(1))
        >>> float(one.cross_spectrum[0, 0, 0].real)
        4.0
    """
    sizes: dict[str, int] = {}
    check_shape("coefficients", coefficients, "p m m", sizes)
    check_shape("covariance", covariance, "m m", sizes)
    check_positive_definite("covariance", covariance)
    lags = 1 + jnp.arange(sizes["p"])
    waves = jnp.exp(-2j * jnp.pi * frequencies[:, None] * lags)
    a = jnp.eye(sizes["m"]) - jnp.einsum("fp,pij->fij", waves, coefficients)
    transfer = jnp.linalg.inv(a)
    spectrum = transfer @ covariance @ _conjugate(transfer)
    inverse = _conjugate(a) @ jnp.linalg.solve(covariance.astype(a.dtype), a)
    return Spectra(a, transfer, spectrum, inverse)


def check_positive_definite(name: str, matrix: Float[Array, "m m"]) -> None:
    """Checks that a matrix has positive eigenvalues only; a traced one passes.

    Raises:
        ValueError: it has not.

    Example:
        >>> check_positive_definite("covariance", jnp.ones((2, 2)))
        Traceback (most recent call last):
        ...
        ValueError: covariance: expected a positive definite matrix, got one whose least eigenvalue is 0
    """  # noqa: E501
    if isinstance(matrix, Tracer):
        return
    values = np.linalg.eigvalsh(np.asarray(matrix, np.float64))
    if not values[0] > 1e-12 * abs(values[-1]):
        least = 0.0 if abs(values[0]) < 1e-9 * abs(values[-1]) else values[0]
        raise ValueError(
            f"{name}: expected a positive definite matrix, got one whose least eigenvalue is "
            f"{least:.3g}"
        )


def dtf(
    transfer: Complex[Array, "f m m"], covariance: Float[Array, "m m"] | None = None
) -> Squared:
    """Directed transfer function, `|H_ij|^2 / sum_k |H_ik|^2`: rows sum to 1.

    Args:
        transfer: H, of `spectral`.
        covariance: Sigma, for the generalised one, which weighs column j with `Sigma_jj` and does
            not change with the units of channels.

    Example:
        >>> dtf(jnp.array([[[1.0, 1.0], [0.0, 2.0]]], jnp.complex64))[0].tolist()
        [[0.5, 0.5], [0.0, 1.0]]
    """
    power = jnp.abs(transfer) ** 2
    power = power if covariance is None else power * jnp.diag(covariance)
    return power / power.sum(-1, keepdims=True)


def pdc(
    coefficients: Complex[Array, "f m m"], covariance: Float[Array, "m m"] | None = None
) -> Squared:
    """Partial directed coherence, `|a_ij|^2 / sum_k |a_kj|^2`: columns sum to 1, 0 iff no link.

    Args:
        coefficients: a(f), of `spectral`.
        covariance: Sigma, for the generalised one, which weighs row i with `1 / Sigma_ii`.

    Example:
        >>> pdc(jnp.array([[[1.0, 0.0], [1.0, 2.0]]], jnp.complex64))[0].tolist()
        [[0.5, 0.0], [0.5, 1.0]]
    """
    power = jnp.abs(coefficients) ** 2
    power = power if covariance is None else power / jnp.diag(covariance)[:, None]
    return power / power.sum(-2, keepdims=True)


def coherence(spectrum: Complex[Array, "f m m"]) -> Squared:
    """`|S_ij|^2 / (S_ii S_jj)`; of the inverse spectrum, the partial coherence.

    Example:
        >>> coherence(jnp.array([[[2.0, 1.0], [1.0, 2.0]]], jnp.complex64))[0, 0].tolist()
        [1.0, 0.25]
    """
    power = jnp.abs(spectrum) ** 2
    own = jnp.diagonal(spectrum, axis1=-2, axis2=-1).real
    return power / (own[..., :, None] * own[..., None, :])


def full_frequency_dtf(transfer: Complex[Array, "f m m"]) -> Squared:
    """`|H_ij(f)|^2 / sum_{f', k} |H_ik(f')|^2`: of a row, all frequencies together sum to 1.

    It depends on the grid of frequencies: on one twice as dense it is half as large.

    Example:
        >>> full_frequency_dtf(jnp.ones((4, 1, 1), jnp.complex64))[0, 0, 0].item()
        0.25
    """
    power = jnp.abs(transfer) ** 2
    return power / power.sum((-3, -1), keepdims=True)


def direct_dtf(spectra: Spectra) -> Squared:
    """Direct directed transfer function, `ffDTF_ij |pCoh_ij|`; not squared. See the module.

    Reference:
        Korzeniewska et al. 2003, doi 10.1016/S0165-0270(03)00052-9.

    Example:
        >>> chain = jnp.array([[[0.5, 0.0], [0.5, 0.5]]])
        >>> found = direct_dtf(spectral(chain, jnp.eye(2), jnp.array([0.1])))[0]
        >>> bool(found[1, 0] > 0.1), float(found[0, 1])
        (True, 0.0)
    """
    partial = coherence(spectra.inverse_spectrum)
    return jnp.sqrt(full_frequency_dtf(spectra.transfer) * partial)


def band_means(
    measure: Squared, frequencies: Float[Array, " f"], edges: Float[Array, "bands 2"]
) -> Float[Array, "bands m m"]:
    """Means over the frequencies `low <= f < high` of each band.

    Example:
        >>> measure = jnp.arange(3.0)[:, None, None]
        >>> band_means(measure, jnp.array([0.0, 0.1, 0.2]), jnp.array([[0.0, 0.2]])).ravel().tolist()
        [0.5]
    """  # noqa: E501
    inside = (frequencies >= edges[:, :1]) & (frequencies < edges[:, 1:])
    total = jnp.einsum("bf,fij->bij", inside.astype(measure.dtype), measure)
    return total / inside.sum(1)[:, None, None]


def direct_links(coefficients: Float[Array, "p m m"]) -> Bool[Array, "m m"]:
    """Whether j acts on i at any lag, `[sink, source]`; nothing is a link of itself.

    Example:
        >>> direct_links(jnp.array([[[0.5, 0.0], [0.5, 0.5]]])).tolist()
        [[False, False], [True, False]]
    """
    links = (coefficients != 0).any(0)
    return links & ~jnp.eye(links.shape[0], dtype=bool)


def paths(direct: Bool[Array, "m m"]) -> Bool[Array, "m m"]:
    """Whether any chain of links leads from j to i: the transitive closure.

    Example:
        >>> paths(jnp.eye(3, k=-1, dtype=bool)).astype(int).tolist()
        [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    """
    reached = direct
    for _ in range(max(direct.shape[0] - 1, 1).bit_length()):
        reached = reached | ((reached.astype(int) @ reached.astype(int)) > 0)
    return reached


def _conjugate(matrix: Complex[Array, "f m m"]) -> Complex[Array, "f m m"]:
    return jnp.conj(jnp.swapaxes(matrix, -1, -2))
