"""Models whose attention weights come from another stream (arXiv 2510.11602)."""

from collections.abc import Collection
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jattn.checks import check_shape
from jattn.nn.transformer import Transformer, TransformerConfig

DECOUPLED = "decoupled_attention"


def apply_with_stream(
    model: Transformer,
    config: TransformerConfig,
    tokens: Int[Array, "b t"],
    *,
    stream: Int[Array, "1 n"] | Float[Array, "1 n m"] | None = None,
    mask: Any = None,
) -> Float[Array, "b t vocab"]:
    """Logits, with a second stream in those layers that are `decoupled_attention`.

    Their queries and keys are of the embeddings (StaticEmbQK), or of what the layers before make of
    a fixed text (FixedSeqQK) or of fixed noise (RndEmbQK). The fixed stream goes through the same
    layers side by side, and gradients through it.

    Args:
        model: made from `config`.
        config: its configuration.
        tokens: `[b, t]`.
        stream: None for the embeddings of the tokens; a fixed text `[1, n]`; or noise `[1, n, m]`,
            drawn once, with the spread of embeddings. n is t at least; the first t are used.
        mask: as for the model; it hides nothing in a fixed stream.

    Returns:
        `[b, t, vocab]`.

    Raises:
        ValueError: shapes that do not fit, or a model without such a layer.

    Reference:
        arXiv 2510.11602.

    Example:
        >>> config = TransformerConfig(vocab_size=50, dim=16, mechanisms="decoupled_attention")
        >>> model = Transformer(config, rngs=nnx.Rngs(0))
        >>> tokens = jnp.zeros((2, 7), int)
        >>> apply_with_stream(model, config, tokens, stream=jnp.ones((1, 9, 16))).shape
        (2, 7, 50)
    """
    sizes = {"m": config.dim}
    check_shape("tokens", tokens, "b t", sizes)
    names = [name for name, _ in config.per_layer()]
    if DECOUPLED not in names:
        raise ValueError(f"config: expected a layer of {DECOUPLED}, got {', '.join(names)}")

    def embedded(tokens):
        return model._embedded(tokens, jnp.arange(tokens.shape[1]))

    x = embedded(tokens)
    other = x
    if stream is not None:
        check_shape("stream", stream, "1 n" if jnp.ndim(stream) == 2 else "1 n m", sizes)
        if sizes["n"] < sizes["t"]:
            raise ValueError(f"stream: expected at least {sizes['t']} tokens, got {sizes['n']}")
        stream = stream[:, : sizes["t"]]
        other = embedded(stream) if stream.ndim == 2 else stream.astype(x.dtype)
    for name, block in zip(names, model.blocks, strict=True):
        context = {"context": block.mixer_norm(other)} if name == DECOUPLED else {}
        x = block(x, mask=mask, **context)
        if stream is not None:
            other = block(other)
    return model._read_out(x)


def without_layers(model: Transformer, layers: Collection[int]) -> Transformer:
    """A copy of the model that skips some layers, whose residual stream passes them by.

    Args:
        model: a transformer.
        layers: which to leave out, counted from 0.

    Example:
        >>> config = TransformerConfig(vocab_size=50, dim=16, layers=4)
        >>> model = Transformer(config, rngs=nnx.Rngs(0))
        >>> len(without_layers(model, (0, 2)).blocks)
        2
    """
    shorter = nnx.clone(model)
    shorter.blocks = nnx.List([b for i, b in enumerate(shorter.blocks) if i not in layers])
    return shorter
