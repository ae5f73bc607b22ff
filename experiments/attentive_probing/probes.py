"""Probes: a pool of tokens, batch norm without weights, and a linear read-out."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.classifier_arms import Models, models_of
from experiments.functional import as_functions
from jattn.nn import Pool
from jattn.training import Paper

PAPER = Paper("arXiv 2506.10178", "Attention, please! Efficient probing")
MEAN = "none"  # what stands for the mean in a config
QUERIES = "efficient_probing:queries="


class Probe(nnx.Module):
    """Several vectors of a pool are averaged; without a pool it is the mean of tokens."""

    def __init__(self, pool: Any, dim: int, classes: int, *, rngs: nnx.Rngs):
        self.pool = None if pool is None else Pool(pool[0], dim=dim, rngs=rngs, **pool[1])
        size = jax.eval_shape(self._pooled, jnp.zeros((1, 2, dim))).shape[-1]
        self.norm = nnx.BatchNorm(size, epsilon=1e-6, use_bias=False, use_scale=False, rngs=rngs)
        self.head = nnx.Linear(size, classes, rngs=rngs)

    def __call__(self, tokens: jax.Array, *, training: bool = False) -> jax.Array:
        """Logits of every set of tokens."""
        pooled = self._pooled(tokens, training=training)
        return self.head(self.norm(pooled, use_running_average=not training))

    def _pooled(self, tokens: jax.Array, *, training: bool = False) -> jax.Array:
        x = tokens if self.pool is None else self.pool(tokens, training=training)
        return x.mean(1)


def probes(text: str, *, dim: int, classes: int) -> Models:
    """A probe for each pool of a config.

    Raises:
        UsageError: no pool, an unknown one, or one that does not fit.
    """

    def make(pool):
        return as_functions(lambda rngs: Probe(pool, dim, classes, rngs=rngs))

    return models_of("pools", text, make)


def maps_of(queries: jax.Array, tokens: jax.Array) -> jax.Array:
    """Where each query of efficient probing looks, `[b, M, n]`.

    Args:
        queries: `[M, m]`.
        tokens: `[b, n, m]`.
    """
    scores = jnp.einsum("qm,bnm->bqn", queries, tokens) / tokens.shape[-1] ** 0.5
    return jax.nn.softmax(scores, axis=-1)
