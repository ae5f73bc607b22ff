"""Gates on what a mixer gives (gated attention, arXiv 2505.06708)."""

import jax
from jaxtyping import Array, Float

from jattn.checks import check_choice, check_flag
from jattn.mechanisms.combinators.on_heads import disjoint, on_heads, state_of
from jattn.mechanisms.frames.checks import check_parameters, shapes_of
from jattn.mechanisms.frames.tokens import clean_tokens
from jattn.mechanisms.layers.heads import split_heads
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.mixer import Mixer, edit_parts, prefill

ACTIVATIONS = {
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "identity": lambda z: z,
    "ns_sigmoid": lambda z: 0.5 + 0.5 * jax.nn.sigmoid(z),  # cannot close: the sink comes back
}
GRANULARITIES = ("element", "head")
MODES = ("multiply", "add")


def gate(
    y: Float[Array, "*batch h e"],
    logits: Float[Array, "*batch #h #e"],
    *,
    activation: str = "sigmoid",
    mode: str = "multiply",
) -> Float[Array, "*batch h e"]:
    """`y * act(logits)`, or `y + act(logits)`.

    Args:
        y: any heads `[..., h, e]`.
        logits: one for each element, or size 1 where heads or elements share one.
        activation: `"sigmoid"`, `"silu"`, `"identity"`, or `"ns_sigmoid"`,
            `0.5 + 0.5 sigmoid(z)`.
        mode: `"multiply"` or `"add"`.

    Returns:
        `[..., h, e]`, in y's dtype.

    Raises:
        ValueError: an unknown activation or mode.

    Reference:
        arXiv 2505.06708.

    Example:
        >>> import jax.numpy as jnp
        >>> gate(jnp.full((1, 2, 4), 3.0), jnp.zeros((1, 2, 1)))[0, 0].tolist()
        [1.5, 1.5, 1.5, 1.5]
    """
    check_choice("activation", activation, list(ACTIVATIONS))
    check_choice("mode", mode, MODES)
    opened = ACTIVATIONS[activation](logits).astype(y.dtype)
    return y * opened if mode == "multiply" else y + opened


def check_gate(granularity: str, activation: str, mode: str) -> None:
    """Checks the options that gates have wherever they stand.

    Raises:
        ValueError: an unknown value.
    """
    check_choice("granularity", granularity, GRANULARITIES)
    check_choice("activation", activation, list(ACTIVATIONS))
    check_choice("mode", mode, MODES)


def gate_init(
    key: jax.Array, dim: int, heads: int, size: int, granularity: str, shared: bool
) -> Float[Array, "m n"]:
    """Weights of the logits of gates on `heads` heads of `size`, drawn as other projections."""
    gates = (1 if shared else heads) * (size if granularity == "element" else 1)
    return linear_init(key, dim, gates)


def gate_logits(
    weights: Float[Array, "m n"],
    x: Float[Array, "*batch m"],
    heads: int,
    shared: bool,
) -> Float[Array, "*batch h e"]:
    """Logits `x W` for `gate`, with size 1 where heads or elements share one."""
    return split_heads(linear(x, weights), 1 if shared else heads)


def gated(
    mixer: Mixer,
    *,
    dim: int,
    heads: int,
    position: str = "G1",
    granularity: str = "element",
    shared: bool = False,
    activation: str = "sigmoid",
    mode: str = "multiply",
) -> Mixer:
    """Any mixer with a gate on its output, a function of the token that asks.

    It adds the parameter `output_gate`.

    Args:
        mixer: one of the zoo, or any; for G1 one with parts, and a parameter `output`.
        dim: its model dimension m.
        heads: its number of heads h.
        position: `"G1"`, on the heads before the output projection, or `"G5"`, after it (there is
            one head of size m then).
        granularity: a gate for each `"element"` or each `"head"`.
        shared: all heads share their gates.
        activation: as in `gate`.
        mode: as in `gate`.

    Returns:
        A `Mixer`.

    Raises:
        ValueError: an unknown value of an option, or a mixer without parts.

    Reference:
        arXiv 2505.06708.

    Example:
        >>> import jattn
        >>> inner = jattn.zoo.make("retention", dim=16, heads=2, causal=True)
        >>> mixer = gated(inner, dim=16, heads=2, granularity="head")
        >>> mixer.init(jax.random.key(0))["output_gate"].shape
        (16, 2)
    """
    check_choice("position", position, ("G1", "G5"))
    check_flag("shared", shared)
    check_gate(granularity, activation, mode)

    def logits(params, x, heads):
        return gate_logits(params["output_gate"], x, heads, shared)

    if position == "G1":

        def init(key, inner):
            size = inner["output"].shape[0] // heads
            return {"output_gate": gate_init(key, dim, heads, size, granularity, shared)}

        def change(params, out, x):
            return gate(out, logits(params, x, heads), activation=activation, mode=mode)

        return on_heads(mixer, heads=heads, init=init, change=change)

    def init_after(key):
        inner, own = jax.random.split(key)
        weights = gate_init(own, dim, 1, dim, granularity, shared)
        return disjoint(mixer.init(inner), {"output_gate": weights})

    def after(params, y, x):
        one_head = y[..., None, :]
        return gate(one_head, logits(params, x, 1), activation=activation, mode=mode)[..., 0, :]

    shapes = shapes_of(init_after)

    def inside(params):
        check_parameters("the mixer and its gate", params, shapes())
        return {name: array for name, array in params.items() if name != "output_gate"}

    def apply(params, x, /, **keywords):
        x, _ = clean_tokens(x, **keywords)
        return after(params, mixer.apply(inside(params), x, **keywords), x)

    def rebuild(parts):
        return gated(
            edit_parts(mixer, lambda _: parts),
            dim=dim, heads=heads, position=position, granularity=granularity, shared=shared,
            activation=activation, mode=mode,
        )  # fmt: skip

    again = None if mixer.rebuild is None else rebuild
    if mixer.step is None:
        return mixer._replace(init=init_after, apply=apply, rebuild=again)
    mixer_step = mixer.step

    def step(params, x, state):
        y, state = mixer_step(inside(params), x, state)
        return after(params, y, x), state

    def whole(params, x, state, length):
        y, state = prefill(mixer, inside(params), x, state, length)
        return after(params, y, x), state

    return mixer._replace(
        init=init_after,
        apply=apply,
        init_state=state_of(mixer, inside),
        step=step,
        prefill=whole,
        rebuild=again,
    )
