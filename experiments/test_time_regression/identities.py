"""Each mechanism against the regression that it is said to solve: R1 to R5."""

import jax
import jax.numpy as jnp

from experiments.test_time_regression.common import (
    claim_of,
    local_weights,
    one_head,
    problem_of,
    seeds_of,
    softmax_weights,
)
from jattn.mechanisms.linear.delta_rule import delta_rule
from jattn.mechanisms.linear.linear_attention import linear_attention
from jattn.theory import regression_layers as layers
from jattn.training import Claim, Run, sweep

RATE, SCALE, RIDGE = 0.5, 4.0, 0.1
ROUNDING = 1e-5  # float32, relative to the largest number compared


def identities(run: Run, config) -> list[Claim]:
    """Outputs of mechanisms, and gradients of what they minimise, at random problems."""
    segments = max(config.segments)

    def compare(seed):
        problem = problem_of(config, seed, segments)
        key, value, query = problem.key, problem.value, problem.query
        arrays = one_head(query, key, value)
        gap = lambda a, b: jnp.abs(a - b).max() / jnp.abs(b).max()
        squares = lambda w, k, v: 0.5 * ((v - k @ w) ** 2).sum()
        zero = jnp.zeros((key.shape[1], value.shape[1]))

        step = -RATE * jax.grad(squares)(zero, key, value)
        read = linear_attention(*arrays, feature_map="identity", normalize=False)[0, :, 0]

        def descend(w, pair):
            return w - RATE * jax.grad(squares)(w, *pair), None

        online = jax.lax.scan(descend, zero, (key, value))[0]
        beta = jnp.full((1, len(key), 1), RATE)
        state = delta_rule(*one_head(key, key, value), beta=beta, return_state=True)[1][0, 0]

        # Ridge regression is linear in the query: its answers to unit vectors are its matrix.
        fit = layers.ridge_regression(jnp.eye(key.shape[1]), key, penalty=RIDGE) @ value
        penalised = lambda w: squares(w, key, value) + 0.5 * RIDGE * (w**2).sum()

        scores = SCALE * query @ key.T
        weights = jnp.exp(scores - scores.max())
        near = lambda b: 0.5 * (weights * ((value - b[:, None]) ** 2).sum(-1)).sum()
        constant = softmax_weights(problem, SCALE) @ value
        line = layers.local_linear(query, key, scores, ridge=RIDGE)

        def flat(loss, at):
            """The gradient where it should be zero, in units of that at the origin."""
            return jnp.abs(jax.grad(loss)(at)).max() / jnp.abs(jax.grad(loss)(0 * at)).max()

        return {
            "linear": gap(RATE * read, query @ step),
            "delta": gap(query @ state, query @ online),
            "mesa": flat(penalised, fit),
            "softmax": flat(near, constant),
            "local_linear": gap(local_weights(problem, SCALE, RIDGE), line),
        }

    found = sweep(run, "identities", compare, seeds_of(config))
    words = {
        "linear": "linear attention is one step of gradient descent from zero",
        "delta": "the delta rule is gradient descent online, one pair at a time",
        "mesa": "the Mesa layer is the minimum of ridge regression (its gradient there)",
        "softmax": "softmax attention is a local constant (the gradient there)",
        "local_linear": "local linear attention is the intercept of a local line",
    }
    note = f"largest of {config.seeds} seeds, relative, float32"
    return [
        claim_of(f"R{i}", text, 0.0, float(found[name].max()), "<=", ROUNDING,
                 where="and arXiv 2501.12352", note=note)
        for i, (name, text) in enumerate(words.items(), 1)
    ]  # fmt: skip
