"""Running a model with edits, and records of its sites: the one entry to the inside of models."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_choice
from jattn.lens.edits import SITES, Edit
from jattn.lens.taps import LensTaps, dense_sites
from jattn.lens.transformer import transformer_sites, watched_transformer
from jattn.nn import Llama, Transformer

Model = Llama | Transformer


@dataclasses.dataclass(frozen=True)
class _Watch:
    """Makes a layer's taps; hashable, so that a program is compiled once for each choice."""

    record: tuple[str, ...]

    def __call__(self, layer: Any, edits: Any) -> LensTaps:
        return LensTaps(layer, edits, self.record)


def run(
    model: Model,
    tokens: Int[Array, "b t"],
    *,
    edits: Sequence[Edit] = (),
    record: Sequence[str] = (),
    mask: Any = None,
    positions: Int[Array, "b t"] | None = None,
) -> tuple[Float[Array, "b t vocab"], dict[str, Array]]:
    """Logits of an edited model, and what its sites held.

    Edits are applied in order, records are taken behind them. Without any it is the model itself,
    bit for bit; a record changes nothing. Biases of logits stay on the fused engine; other edits
    and records of `logits` and `probs` hold `[b, h, t, s]`: `explain` tells.

    Args:
        model: a `jattn.nn.Llama` or `jattn.nn.Transformer`.
        tokens: `[b, t]`.
        edits: see `jattn.lens.edits`. They are pytrees: batch them with `vmap`, differentiate.
        record: names of sites.
        mask: as for the model.
        positions: as for the model.

    Returns:
        Logits `[b, t, vocab]`, and `{site: [L, ...]}`.

    Raises:
        ValueError: an unknown site, one that a layer's mechanism does not have, or an edit of
            another shape.

    Example:
        >>> from flax import nnx
        >>> from jattn.nn import LlamaConfig
        >>> config = LlamaConfig(vocab_size=50, dim=16, layers=2, heads=4, kv_heads=2, hidden=32)
        >>> model, tokens = Llama(config, rngs=nnx.Rngs(0)), jnp.zeros((1, 7), int)
        >>> logits, found = run(model, tokens, record=("probs", "z"))
        >>> found["probs"].shape, found["z"].shape
        ((2, 1, 4, 7, 7), (2, 1, 7, 4, 4))
    """
    edits, record = tuple(edits), tuple(record)
    _check(model, edits, record)
    options = dict(mask=mask, positions=positions)
    if not edits and not record:
        return model(tokens, **options), {}
    watch = _Watch(record)
    if isinstance(model, Llama):
        return model.watched(tokens, watch=watch, edits=edits, **options)
    return watched_transformer(model, tokens, watch=lambda l: watch(l, edits), **options)


def explain(model: Model, *, edits: Sequence[Edit] = (), record: Sequence[str] = ()) -> str:
    """Says whether attention runs fused or dense under these edits and records, and why.

    Example:
        >>> from flax import nnx
        >>> from jattn.lens.edits import KeyReweight
        >>> from jattn.nn import LlamaConfig
        >>> config = LlamaConfig(vocab_size=50, dim=16, layers=2, heads=4, kv_heads=2, hidden=32)
        >>> model = Llama(config, rngs=nnx.Rngs(0))
        >>> explain(model, edits=[KeyReweight(jnp.ones((1, 1, 1, 1, 1)))])
        'fused: nothing holds [b, h, t, s]'
        >>> explain(model, record=("probs",))
        'dense: [b, h, t, s] is held in every layer, for probs'
    """
    _check(model, tuple(edits), tuple(record))
    sites = dense_sites(edits, record)
    if not sites:
        return "fused: nothing holds [b, h, t, s]"
    return f"dense: [b, h, t, s] is held in every layer, for {' and '.join(sites)}"


def depth(model: Model) -> int:
    """Number of layers."""
    return model.config.layers if isinstance(model, Llama) else len(model.blocks)


def _check(model: Any, edits: tuple[Any, ...], record: tuple[str, ...]) -> None:
    if not isinstance(model, Llama | Transformer):
        wanted = "a jattn.nn.Llama or Transformer"
        raise ValueError(f"model: expected {wanted}, got {type(model).__name__}")
    known = SITES if isinstance(model, Llama) else transformer_sites(model)
    for site in record:
        check_choice("record", site, known)
    layers = depth(model)
    for index, edit in enumerate(edits):
        if not isinstance(edit, Edit):
            raise ValueError(
                f"edits[{index}]: expected an edit of jattn.lens, such as At(site, function), "
                f"got {type(edit).__name__}"
            )
        check_choice(f"edits[{index}].site", edit.site, known)
        for name, arrays in edit.arrays().items():
            for leaf in jax.tree.leaves(arrays):
                shape = jnp.shape(leaf)
                if shape and shape[0] not in (1, layers):
                    raise ValueError(
                        f"edits[{index}].{name}: expected [L={layers}, ...] or [1, ...], "
                        f"got shape {list(shape)}"
                    )
