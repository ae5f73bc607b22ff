"""VAR: attention taken off sinks and given to a span of the context (arXiv 2503.03321).

A token is a sink of a layer where phi = max over the model's massive channels of |x| over its root
mean square is tau at least. A row of a head qualifies if it has `min_mass` on the span V at least,
and at most a share rho of that on sinks. Then a share 1 - keep of its weight on all sinks goes to
the tokens of V that are none, in proportion to what they have. V is an image there; here it is any
span. The norm has no learned weight, as in the authors' code, which leaves the first two layers
and the last alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.lens.edits import At, move_budget
from jattn.lens.methods.method import Method, example_maps
from jattn.lens.readouts import massiveness


def qualifying_rows(
    probs: Float[Array, "*batch h t s"],
    sinks: Bool[Array, "*batch s"],
    span: Bool[Array, " s"],
    *,
    rho: Any = 0.5,
    min_mass: Any = 0.2,
) -> Bool[Array, "*batch h t"]:
    """Rows of heads that look at the span, and not at its sinks alone."""
    mass = jnp.where(span, probs, 0).sum(-1)
    on_sinks = jnp.where((span & sinks)[..., None, None, :], probs, 0).sum(-1)
    return (mass >= min_mass) & (on_sinks <= rho * mass)


def visual_redistribution(
    probs: Float[Array, "*batch h t s"],
    hidden: Float[Array, "*batch s m"],
    span: Bool[Array, " s"],
    dims: Int[Array, " n"],
    *,
    tau: Any = 20.0,
    rho: Any = 0.5,
    min_mass: Any = 0.2,
    keep: Any = 0.6,
) -> Float[Array, "*batch h t s"]:
    """Redistributed maps.

    Args:
        probs: maps.
        hidden: the layer's input.
        span: V, the tokens that shall get more.
        dims: the model's massive channels; `readouts.massive_dims` finds them.
        tau: least phi of a sink.
        rho: largest share of a row's weight on V that may be on sinks.
        min_mass: least weight of a row on V.
        keep: share that stays on sinks.

    Reference:
        arXiv 2503.03321, section 4.
    """
    sinks = massiveness(hidden, dims) >= tau
    rows = qualifying_rows(probs, sinks, span, rho=rho, min_mass=min_mass)
    source = sinks[..., None, None, :]
    moved = move_budget(probs, source, (span & ~sinks)[..., None, None, :], keep)
    return jnp.where(rows[..., None], moved, probs)


def redistribution_edit(
    layers: Bool[Array, " L"],
    span: Bool[Array, " s"],
    dims: Int[Array, " n"],
    *,
    tau: float = 20.0,
    rho: float = 0.5,
    min_mass: float = 0.2,
    keep: float = 0.6,
) -> At:
    """The edit in some layers, of rows behind the span; sinks are found on the way."""
    numbers = tuple(jnp.full((1,), x) for x in (tau, rho, min_mass, keep))
    return At("probs", _in_layer, (jnp.asarray(layers), span[None], dims[None], *numbers))


def _in_layer(probs: Any, data: Any, seen: Any) -> Array:
    on, span, dims, tau, rho, min_mass, keep = data
    numbers = dict(tau=tau, rho=rho, min_mass=min_mass, keep=keep)
    moved = visual_redistribution(probs, seen["resid_pre"], span, dims, **numbers)
    last = jnp.max(jnp.where(span, jnp.arange(len(span)), -1))
    behind = jnp.arange(probs.shape[-2]) > last
    return jnp.where(on & behind[:, None], moved, probs)


def _example(key):
    maps, stream = jax.random.split(key)
    hidden = jax.random.normal(stream, (2, 8, 64)).at[:, jnp.array([0, 4]), 3].set(60.0)
    span = (jnp.arange(8) > 2) & (jnp.arange(8) < 7)
    probs = example_maps(maps, 2, 3, 8, 8)
    return dict(probs=probs, hidden=hidden, span=span, dims=jnp.array([3]), tau=7.0)


METHOD = Method(
    name="visual_redistribution",
    title="See what you are told: visual attention sink in large multimodal models",
    arxiv="2503.03321",
    kind="maps",
    function=visual_redistribution,
    example=_example,
    identity={"keep": 1.0},
)
