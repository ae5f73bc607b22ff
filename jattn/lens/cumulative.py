"""Rollout of a model's attention: which inputs each position has its information from."""

from collections.abc import Sequence

from jaxtyping import Array, Float, Int

from jattn.attention.rollout import rollout as rollout_of
from jattn.lens.run import Model, run


def rollout(
    model: Model,
    tokens: Int[Array, "b t"],
    *,
    residual: float | Sequence[float] | Float[Array, " l"] = 0.5,
) -> Float[Array, "b t t"]:
    """The product of a model's attention maps, averaged over heads, skip connections included.

    Args:
        model: a `jattn.nn.Llama` or `jattn.nn.Transformer` whose mixers have maps.
        tokens: `[b, t]`.
        residual: the share of the skip connections, of all layers or of each; 0 leaves them out.

    Returns:
        `[b, t, t]`: row i, what output i has of each input; rows sum to one.

    Raises:
        ValueError: a layer has no map, or shares of another number than the layers.

    Reference:
        arXiv 2005.00928 (attention rollout, with residual 0.5); 2502.01951 (position bias).

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jattn.nn import Llama, LlamaConfig
        >>> config = LlamaConfig(vocab_size=50, dim=16, layers=2, heads=4, kv_heads=2, hidden=32)
        >>> model = Llama(config, rngs=nnx.Rngs(0))
        >>> found = rollout(model, jnp.zeros((1, 7), int))
        >>> found.shape, bool(jnp.allclose(found.sum(-1), 1.0, atol=1e-5))
        ((1, 7, 7), True)
    """
    _, found = run(model, tokens, record=("probs",))
    return rollout_of(found["probs"], residual)
