"""Taps in a `jattn.nn.Transformer`, whose layers may mix tokens by any mechanism.

Where attention is a plain softmax, all sites are as in Llama. Elsewhere `probs` is the effective
map: as a core is linear in its values, what it makes of values that are unit vectors are the
weights it amounts to, by token and key, whether they come from a softmax or out of a state.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jattn.checks import check_indices, check_shape
from jattn.lens.edits import SITES
from jattn.lens.taps import LensTaps, aggregate, dense_sites
from jattn.mechanisms.mixer import Parts
from jattn.nn import Transformer

STREAM = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
OF_CORES = ("q", "k", "v", "probs", "z")
OF_SOFTMAX = ("logits",)


def transformer_sites(model: Transformer) -> tuple[str, ...]:
    """The sites that all layers of a model have."""
    have = set(STREAM)
    parts = [block.mixer.pair.parts for block in model.blocks]
    if all(part is not None and part.core is not None for part in parts):
        have |= set(OF_CORES)
        if all(model.plain_softmax):
            have |= set(OF_SOFTMAX)
    return tuple(site for site in SITES if site in have)


def watched_transformer(
    model: Transformer,
    tokens: Int[Array, "b t"],
    *,
    watch: Callable[[int], LensTaps],
    mask: Any = None,
    positions: Int[Array, "b t"] | None = None,
    at: Int[Array, " b"] | None = None,
) -> tuple[Float[Array, "b ... vocab"], dict[str, Array]]:
    """Logits, of one token of each text if `at` says so, and records `[L, ...]` of the taps."""
    sizes: dict[str, int] = {}
    check_shape("tokens", tokens, "b t", sizes)
    if at is not None:
        check_shape("at", at, "b", sizes)
        check_indices("at", at, tokens.shape[1])
    inside = [site for site in transformer_sites(model) if site not in STREAM]
    where = jnp.arange(tokens.shape[1]) if positions is None else positions
    x, found = model._embedded(tokens, where), []
    for index, block in enumerate(model.blocks):
        taps, edit = watch(index), None
        if inside:
            edit = tapped_core(taps, model.plain_softmax[index])
        x = taps("resid_pre", x)
        out = block.mixer(block.mixer_norm(x), mask=mask, positions=positions, edit=edit)
        x = taps("resid_mid", x + taps("attn_out", out))
        out = jnp.zeros_like(x)
        if block.mlp is not None and block.mlp_norm is not None:
            out = block.mlp(block.mlp_norm(x))
        x = taps("resid_post", x + taps("mlp_out", out))
        found.append(taps.records)
    if at is not None:
        x = x[jnp.arange(len(x)), at]
    return model._read_out(x), stacked(found)


def effective_attention(
    model: Transformer, tokens: Int[Array, "b t"], *, mask: Any = None
) -> Float[Array, "L b h t s"]:
    """The maps that mixers amount to: `z_t = sum_s map_ts v_s`, exact for whatever is linear in v.

    Recurrent ones read what their states hold, decayed, overwritten and all; their maps may be
    negative, and rows need not sum to 1. What a mechanism does behind its core (a norm, a gate) is
    not in it.

    Args:
        model: every layer's mechanism has a core of queries, keys and values.
        tokens: `[b, t]`.
        mask: as for the model.

    Returns:
        `[L, b, h, t, s]`.

    Raises:
        ValueError: a layer without such a core, or layers of other numbers of heads.

    Example:
        >>> from flax import nnx
        >>> from jattn.nn import TransformerConfig
        >>> config = TransformerConfig(vocab_size=50, dim=16, mechanisms="retention")
        >>> model = Transformer(config, rngs=nnx.Rngs(0))
        >>> effective_attention(model, jnp.zeros((1, 7), int)).shape
        (2, 1, 4, 7, 7)
    """
    if "probs" not in transformer_sites(model):
        raise ValueError("model: expected mechanisms with a core of queries, keys and values")
    watch = lambda layer: LensTaps(layer, (), ("probs",))
    return watched_transformer(model, tokens, watch=watch, mask=mask)[1]["probs"]


def tapped_core(taps: LensTaps, plain: bool) -> Callable[[Parts], Parts]:
    """Parts whose core goes through the taps."""

    def edit(parts: Parts) -> Parts:
        own: Any = parts.core

        def core(*args: Any, **kwargs: Any) -> Any:
            if "query" in kwargs:  # of a recurrent frame
                query, key, value = (kwargs[name] for name in ("query", "key", "value"))
                call = lambda q, k, v: own(**(kwargs | dict(query=q, key=k, value=v)))
            else:
                params, query, key, value, *rest = args
                call = lambda q, k, v: own(params, q, k, v, *rest, **kwargs)
            query, key, value = taps("q", query), taps("k", key), taps("v", value)
            if plain:
                context = args[4]
                return taps("z", taps.attend(query, key, value, context.mask))
            return taps("z", _through_map(taps, call, query, key, value))

        return parts._replace(core=core)

    return edit


def _through_map(taps: LensTaps, call: Callable[..., Array], query, key, value) -> Array:
    """What a core gives, by way of its effective map where that is looked at or changed."""
    if "probs" not in dense_sites(taps.edits, taps.record):
        return call(query, key, value)
    b, s, heads = value.shape[:3]
    units = jnp.broadcast_to(jnp.eye(s, dtype=value.dtype)[:, None], (b, s, heads, s))
    # Known values would have the compiler work through what is done to them.
    found = call(query, key, lax.optimization_barrier(units))
    probs = jnp.swapaxes(found, 1, 2)
    edited = taps("probs", probs)
    if edited is probs:
        return call(query, key, value)
    return aggregate(edited, value).astype(value.dtype)


def stacked(found: list[dict[str, Array]]) -> dict[str, Array]:
    """Records of layers, behind one another."""
    records = {}
    for site in found[0] if found else ():
        values = [one[site] for one in found]
        if len({value.shape for value in values}) > 1:
            shapes = ", ".join(str(list(value.shape)) for value in values)
            raise ValueError(f"record: {site} has other shapes in other layers: {shapes}")
        records[site] = jnp.stack(values)
    return records
