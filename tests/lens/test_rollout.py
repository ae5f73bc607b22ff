"""Rollout of whole models against the product of their maps."""

import jax
import numpy as np
import pytest
from flax import nnx

from jattn import lens
from jattn.nn import Transformer, TransformerConfig


@pytest.mark.parametrize("residual", [0.0, 0.5])
def test_rollout_is_the_product_of_the_maps_of_all_layers(residual):
    config = TransformerConfig(
        vocab_size=20, dim=16, layers=2, heads=2, positions="learned", max_length=9
    )
    model = Transformer(config, rngs=nnx.Rngs(0))
    tokens = jax.random.randint(jax.random.key(1), (2, 9), 0, 20)
    maps = np.asarray(lens.run(model, tokens, record=("probs",))[1]["probs"]).mean(2)
    first, second = (residual * np.eye(9) + (1 - residual) * layer for layer in maps)
    found = lens.rollout(model, tokens, residual=residual)
    np.testing.assert_allclose(found, second @ first, atol=1e-5)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    assert not np.triu(found, 1).any()
