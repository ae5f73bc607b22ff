"""Heads as experts: each token chooses and weighs them (mixture of heads, arXiv 2410.11842)."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_count
from jattn.mechanisms.combinators.on_heads import on_heads
from jattn.mechanisms.frames.tokens import clean_tokens
from jattn.mechanisms.layers.heads import split_heads
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.mixer import Auxiliary, Mixer, parts_of, replace_fields

ROUTERS = ("learned", "query_norm")


def top_k(scores: Float[Array, "*batch n"], k: int) -> Bool[Array, "*batch n"]:
    """Marks the k largest of the last axis; among equal ones the first."""
    _, index = lax.top_k(scores, k)
    return jax.nn.one_hot(index, scores.shape[-1], dtype=bool).any(-2)


def moh_gates(
    x: Float[Array, "b t m"],
    router: Float[Array, "m r"] | None,
    shared_router: Float[Array, "m s"] | None = None,
    type_router: Float[Array, "m 2"] | None = None,
    *,
    shared: int = 0,
    chosen: int,
    real: Bool[Array, "b t"] | None = None,
) -> tuple[Float[Array, "b t h"], Float[Array, ""]]:
    """Weights of heads, and the loss that balances the load of the routed ones.

        p = softmax(x W_router),  M = the `chosen` largest of p
        routed gates = chosen * p M / sum(p M)
        shared gates = shared * softmax(x W_shared)         (1 without W_shared)
        (a_1, a_2) = 2 softmax(x W_type)                    (1 without W_type)
        gates = [a_1 shared gates, a_2 routed gates]
        balance = r^2 mean_n( mean(p_n) mean(M_n) )         means over real tokens

    Args:
        x: tokens `[b, t, m]`.
        router: `[m, r]`; None where no head is routed.
        shared_router: `[m, shared]`.
        type_router: `[m, 2]`: shared, routed.
        shared: number of heads that are always on, the first ones.
        chosen: number of routed heads a token takes.
        real: True where a token is real; the balance counts those only.

    Returns:
        Gates `[b, t, shared + r]` in float32 (float64), of which `shared + chosen` are not zero;
        and the balance, `chosen` where the mean of p is uniform, to be added to the task's loss
        times about 0.01 for each layer. Gradients pass through p; M is a constant.

    Reference:
        arXiv 2410.11842.

    Example:
        >>> gates, balance = moh_gates(jnp.ones((1, 3, 4)), jnp.zeros((4, 6)), chosen=2)
        >>> gates[0, 0].tolist(), round(float(balance), 4)
        ([1.0, 1.0, 0.0, 0.0, 0.0, 0.0], 2.0)
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    always = jnp.ones((*x.shape[:2], shared), x.dtype)
    if shared_router is not None:
        always = shared * jax.nn.softmax(linear(x, shared_router), axis=-1)
    if router is None:
        return always, jnp.zeros((), x.dtype)
    share = jax.nn.softmax(linear(x, router), axis=-1)
    mask = top_k(share, chosen).astype(x.dtype)
    kept = share * mask
    routed = chosen * kept / jnp.maximum(kept.sum(-1, keepdims=True), jnp.finfo(x.dtype).eps)

    weight = jnp.ones(x.shape[:2], x.dtype) if real is None else real.astype(x.dtype)
    mean = lambda values: jnp.einsum("bt,btn->n", weight, values) / jnp.maximum(weight.sum(), 1)
    balance = share.shape[-1] ** 2 * jnp.mean(mean(share) * mean(mask))
    if type_router is not None:
        types = 2 * jax.nn.softmax(linear(x, type_router), axis=-1)
        always, routed = types[..., :1] * always, types[..., 1:] * routed
    return jnp.concatenate([always, routed], axis=-1), balance


def query_norm_gates(
    query: Float[Array, "b t h d"], *, shared: int = 0, chosen: int
) -> tuple[Float[Array, "b t h"], Float[Array, "b t r"]]:
    """Heads chosen by the length of their queries: a router without parameters.

        p = softmax( |q_n| / std_n |q_n| ) over the routed heads n,  M = the `chosen` largest of p

    A head is on or off; p does not weigh it. So a trained model keeps its scale when heads are
    switched off. In the gradient M stands for p (straight-through).

    Args:
        query: `[b, t, h, d]`; a rotation by positions changes nothing.
        shared: number of heads that are always on, the first ones.
        chosen: number of the others that a token takes.

    Returns:
        Gates 0 or 1, `[b, t, h]`, and p `[b, t, h - shared]`, both in float32 (float64).

    Reference:
        arXiv 2410.11842, section on continued training.

    Example:
        >>> gates, _ = query_norm_gates(jnp.arange(4.0)[None, None, :, None], shared=1, chosen=1)
        >>> gates[0, 0].tolist()
        [1.0, 0.0, 0.0, 1.0]
    """
    wide = query.astype(jnp.promote_types(query.dtype, jnp.float32))
    # Floors under the roots: queries of zero, or of one length, have no slope.
    floor = jnp.finfo(wide.dtype).tiny
    length = jnp.sqrt(jnp.maximum((wide[:, :, shared:] ** 2).sum(-1), floor))
    variance = length.var(-1, keepdims=True, ddof=1)
    share = jax.nn.softmax(length / jnp.sqrt(jnp.maximum(variance, floor)), axis=-1)
    mask = top_k(share, chosen).astype(wide.dtype)
    # share - share is an exact zero, so the gates are exactly 0 and 1.
    mask = mask + (share - lax.stop_gradient(share))
    return jnp.concatenate([jnp.ones_like(wide[:, :, :shared, 0]), mask], axis=-1), share


def routed(
    mixer: Mixer,
    *,
    dim: int,
    heads: int,
    shared: int | None = None,
    chosen: int | None = None,
    router: str = "learned",
) -> Mixer:
    """Any mixer whose tokens choose among its heads.

    Every head is computed; a gate of zero makes it void. It adds the parameters `router`,
    `shared_router` (for two shared heads or more) and `type_router` (for heads of both kinds), and
    with a learned router the auxiliary loss `balance`, over real tokens, as `moh_gates` has it.

    Args:
        mixer: one with parts, as those of the zoo have them.
        dim: its model dimension m.
        heads: its number of heads h.
        shared: heads that are always on; default a quarter.
        chosen: routed heads that a token takes; default half of all heads, two at least. With one
            its weight is constant: the router then learns from the balance only.
        router: `"learned"`, as `moh_gates`, or `"query_norm"`, as `query_norm_gates`, for mixers
            with a parameter `query`.

    Returns:
        A `Mixer`.

    Raises:
        ValueError: numbers that do not fit.

    Reference:
        arXiv 2410.11842.

    Example:
        >>> import jattn
        >>> inner = jattn.zoo.make("softmax_attention", dim=16, heads=8)
        >>> mixer = routed(inner, dim=16, heads=8, shared=2, chosen=3)
        >>> sorted(set(mixer.init(jax.random.key(0))) - {"key", "query", "value", "output"})
        ['router', 'shared_router', 'type_router']
    """
    check_choice("router", router, ROUTERS)
    check_count("dim", dim)
    check_count("heads", heads)
    shared = heads // 4 if shared is None else shared
    check_count("shared", shared, 0)
    if not shared <= heads:
        raise ValueError(f"shared: expected 0 to {heads} of {heads} heads, got {shared}")
    others = heads - shared
    chosen = min(others, max(2, heads // 2)) if chosen is None else chosen
    check_count("chosen", chosen, 0)
    if not min(1, others) <= chosen <= others:
        raise ValueError(
            f"chosen: expected {min(1, others)} to {others} routed heads, got {chosen}"
        )
    if router == "query_norm" and others < 2:
        raise ValueError(f"router: query_norm compares routed heads; expected 2, got {others}")

    def init(key, inner):
        keys = jax.random.split(key, 3)
        own = {}
        if router == "learned" and others:
            own["router"] = linear_init(keys[0], dim, others)
        if router == "learned" and shared > 1:
            own["shared_router"] = linear_init(keys[1], dim, shared)
        if router == "learned" and shared and others:
            own["type_router"] = linear_init(keys[2], dim, 2)
        return own

    def gates_and_balance(params, x, real=None):
        routers = (params.get(name) for name in ("router", "shared_router", "type_router"))
        return moh_gates(x, *routers, shared=shared, chosen=chosen, real=real)

    def change(params, out, x):
        if router == "learned":
            gates, _ = gates_and_balance(params, x)
        else:
            query = parts_of(mixer).project(params, x, x)["query"]
            gates, _ = query_norm_gates(split_heads(query, heads), shared=shared, chosen=chosen)
        return out * gates[..., None].astype(out.dtype)

    def auxiliary(params, x, /, *, context=None, mask=None, **others):
        found = Auxiliary({}, {})
        if mixer.auxiliary is not None:
            found = mixer.auxiliary(params, x, context=context, mask=mask, **others)
        x, real = clean_tokens(x, context=context, mask=mask)
        _, balance = gates_and_balance(params, x, real)
        return found._replace(losses=found.losses | {"balance": balance})

    combined = on_heads(mixer, heads=heads, init=init, change=change)
    balanced = router == "learned" and others
    return replace_fields(combined, auxiliary=auxiliary) if balanced else combined
