"""Several regression tasks on shared heads: the large-L risk of the reduced model, and its flow.

Head h has scales omega_h `[d]` on the coordinates and mu_h `[n]` for the tasks; task n has
regressors N(0, I/s_n) on the s_n coordinates of S_n. With c = (1 + s2) / L,

    A_n = 1 + s2 - (2/s_n) sum_h mu_hn sum_{j in S_n} omega_hj
          + sum_hk mu_hn mu_kn ( (1/s_n) sum_{j in S_n} omega_hj omega_kj + c E_hk ),
    E_hk = exp(omega_h . omega_k)

N + 1 heads serve N tasks exactly, in the limit of small omega; how fast the excess falls depends on
whether each task has a pair of its own (H = 2N: t^(-2/3)) or heads are shared (t^(-1/2)). Derived
here, in the setting of arXiv 2503.12734, section 3.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp

from jattn.theory import icl


def task_weights(tasks: Sequence[Sequence[int]], dim: int) -> Float[np.ndarray, "n d"]:
    """`1/s_n` on the coordinates of task n, 0 off them.

    Example:
        >>> task_weights([(0, 1)], 3).tolist()
        [[0.5, 0.5, 0.0]]
    """
    weights = np.zeros((len(tasks), dim))
    for row, coordinates in zip(weights, tasks, strict=True):
        row[list(coordinates)] = 1 / len(coordinates)
    return weights


def multitask_reduced_risk(
    omega: Float[np.ndarray, "h d"],
    mu: Float[np.ndarray, "h n"],
    tasks: Sequence[Sequence[int]],
    *,
    length: int,
    noise_variance: float,
) -> Float[np.ndarray, " n"]:
    """The risk of each task, `A_n`.

    Args:
        omega: `[h, d]`.
        mu: `[h, n]`.
        tasks: coordinates of each.
        length, noise_variance: L, s2.

    Example:
        >>> one = np.ones((1, 1))
        >>> multitask_reduced_risk(0 * one, 0 * one, [(0,)], length=40, noise_variance=0.1).tolist()
        [1.1]
    """
    weights, c = task_weights(tasks, omega.shape[1]), (1 + noise_variance) / length
    gain = mu.T @ omega
    kernel = c * np.exp(omega @ omega.T)
    explained = (weights * (2 * gain - gain**2)).sum(1)
    return 1 + noise_variance - explained + np.einsum("hn,hk,kn->n", mu, kernel, mu)


def multitask_flow(
    omega: Float[np.ndarray, "h d"],
    mu: Float[np.ndarray, "h n"],
    times: Float[np.ndarray, " times"],
    tasks: Sequence[Sequence[int]],
    *,
    length: int,
    noise_variance: float,
) -> Float[np.ndarray, " times"]:
    """Mean risk over tasks along gradient flow on it.

    Args:
        omega, mu: the start, `[h, d]` and `[h, n]`.
        times: increasing times to report, >= 0.
        tasks: coordinates of each.
        length, noise_variance: L, s2.

    Raises:
        RuntimeError: the solver failed.

    Example:
        >>> start = 0.1 * np.array([[1.0], [-1.0]])
        >>> problem = dict(length=40, noise_variance=0.1)
        >>> risk = multitask_flow(start, start, np.array([0.0, 1e4]), [(0,)], **problem)
        >>> bool(risk[0] > risk[1] > multitask_infimum([(0,)], **problem))
        True
    """
    shape, cut = omega.shape, omega.size
    weights, c = task_weights(tasks, shape[1]), (1 + noise_variance) / length

    def split(state):
        return state[:cut].reshape(shape), state[cut:].reshape(mu.shape)

    def velocity(_, state):
        w, m = split(state)
        kernel = c * np.exp(w @ w.T)
        rest = weights * (1 - m.T @ w)  # [n, d]
        towards_mu = w @ rest.T - kernel @ m
        towards_omega = m @ rest - (kernel * (m @ m.T)) @ w
        return 2 / len(tasks) * np.concatenate([towards_omega.ravel(), towards_mu.ravel()])

    solution = solve_ivp(
        velocity,
        (0.0, float(times[-1])),
        np.concatenate([omega.ravel(), mu.ravel()]).astype(float),
        method="LSODA",
        t_eval=times,
        rtol=1e-8,
        atol=1e-10,
    )
    if not solution.success:
        raise RuntimeError(f"multitask_flow: {solution.message}")
    return np.array(
        [
            multitask_reduced_risk(
                *split(y), tasks, length=length, noise_variance=noise_variance
            ).mean()
            for y in solution.y.T
        ]
    )


def multitask_infimum(
    tasks: Sequence[Sequence[int]], *, length: int, noise_variance: float
) -> float:
    """The mean of `A_n` with enough heads: `1 + s2 - 1 / (1 + c s_n)` each.

    Example:
        >>> round(multitask_infimum([(0, 1, 2, 3)], length=40, noise_variance=0.1), 4)
        0.1991
    """
    steps = [
        icl.effective_step(dim=len(task), length=length, noise_variance=noise_variance)
        for task in tasks
    ]
    return float(1 + noise_variance - np.mean(steps))
