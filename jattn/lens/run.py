"""Running a model with edits, and records of its sites: the one entry to the inside of models."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_choice
from jattn.lens.edits import SITES, Edit, Replace
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
    at: Int[Array, " b"] | None = None,
) -> tuple[Float[Array, "b ... vocab"], dict[str, Array]]:
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
        at: a token of each text, whose logits alone are computed: of a large vocabulary those of
            all tokens take as long as many layers. Records are of all tokens all the same.

    Returns:
        Logits `[b, t, vocab]`, or `[b, vocab]` with `at`; and `{site: [L, ...]}`.

    Raises:
        ValueError: an unknown site, one that a layer's mechanism does not have, an edit of
            another shape, or a token that there is not.

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
    nothing = not edits and not record
    if isinstance(model, Llama):
        watch = None if nothing else _Watch(record)
        return model.watched(tokens, watch=watch, edits=edits, at=at, **options)
    if nothing and at is None:
        return model(tokens, **options), {}
    watch = lambda layer: LensTaps(layer, edits, record)
    return watched_transformer(model, tokens, watch=watch, at=at, **options)


def resume(
    model: Llama,
    stream: Float[Array, "b t m"],
    layer: int,
    *,
    record: Sequence[str] = (),
    at: Int[Array, " b"] | None = None,
) -> tuple[Float[Array, "b ... vocab"], dict[str, Array]]:
    """What `run` gives of the layers behind one, which go on from a given residual stream.

    Edits that reach no earlier layer need no more than that: one full run is recorded, and only
    its end is run anew for each of them. Positions are counted from 0.

    Args:
        model: a `jattn.nn.Llama`.
        stream: `resid_post` of the layer, recorded and changed.
        layer: counted from 0; not the last one.
        record: names of sites; records are of the layers behind.
        at: as for `run`.

    Raises:
        ValueError: a layer that there is not, or that nothing is behind.

    Example:
        >>> from flax import nnx
        >>> from jattn.nn import LlamaConfig
        >>> config = LlamaConfig(vocab_size=50, dim=16, layers=3, heads=4, kv_heads=2, hidden=32)
        >>> model, tokens = Llama(config, rngs=nnx.Rngs(0)), jnp.zeros((1, 7), int)
        >>> logits, found = run(model, tokens, record=("resid_post",))
        >>> again, _ = resume(model, found["resid_post"][1], 1)
        >>> bool(jnp.allclose(again, logits, atol=1e-5))
        True
    """
    left = model.config.layers - 1 - layer
    if layer < 0 or left < 1:
        raise ValueError(f"layer: expected 0 to {model.config.layers - 2}, got {layer}")
    weights = model.arrays()
    behind = {name: x[layer + 1 :] for name, x in weights["layers"].items()}
    config = dataclasses.replace(model.config, layers=left)
    rest = Llama(config, weights=weights | {"layers": behind})
    start = Replace(stream[None], (jnp.arange(left) == 0)[:, None, None, None], site="resid_pre")
    return run(rest, jnp.zeros(stream.shape[:2], int), edits=[start], record=record, at=at)


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
