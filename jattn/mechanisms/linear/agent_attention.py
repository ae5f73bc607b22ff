"""Agent attention: a few agents read all tokens, and all tokens read the agents.

Paper: Agent Attention, arXiv 2312.08874.

    V_A = softmax(s A K^T + B_1) V,    O = softmax(s Q A^T + B_2) V_A + DWC(V)

with agents A `[n, d]`, n << N, that are pooled from the queries; DWC is a depthwise convolution
over neighbouring tokens, which gives back the detail that n agents cannot carry.

Distinctive: two softmax attentions in O(N n d), together a linear attention with features
softmax(s Q A^T): its weights sum to one and have rank n at most.

Limits: one agent gives every query the same output; as many agents as queries are the queries.
The paper has no causal form.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.attention.attend import attend
from jattn.checks import check_count, check_flag, check_shape
from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.layers.convolutions import depthwise
from jattn.mechanisms.layers.heads import (
    merge_heads,
    project_output,
    project_qkv,
    qkvo_init,
    split_qkv,
)
from jattn.mechanisms.layers.size_checks import check_grid, check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer, Parts

SMALL = 7  # side of the images of which biases are interpolated
BIAS_STD = 0.02


def agent_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    agents: Float[Array, "b n h d"],
    *,
    bias_in: Float[Array, "#b #h n s"] | None = None,
    bias_out: Float[Array, "#b #h t n"] | None = None,
    scale: float | None = None,
    scale_out: float | None = None,
    shortcut: float = 0.0,
    mask: Bool[Array, "b s"] | None = None,
) -> Float[Array, "b t h e"]:
    """Attention through agents.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, s, g, d]`, g dividing h.
        value: `[b, s, g, e]`.
        agents: `[b, n, h, d]`.
        bias_in: B_1, of agents over tokens, broadcastable to `[b, h, n, s]`.
        bias_out: B_2, of tokens over agents, broadcastable to `[b, h, t, n]`.
        scale: s; default `d**-0.5`.
        scale_out: that of the second attention; default `scale`. Without training, in a diffusion
            model, the paper takes `scale**0.3`.
        shortcut: times the values, added to the output, s = t and g = h; the paper takes 0.075
            without training.
        mask: True for real keys, `[b, s]`; None if all are.

    Returns:
        `[b, t, h, e]` in the query's dtype.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2312.08874.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 10, 2, 4))
        >>> agent_attention(x, x, x, x[:, :3]).shape
        (1, 10, 2, 4)
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("agents", agents, "b n h d", sizes)
    scale = sizes["d"] ** -0.5 if scale is None else scale
    mask = None if mask is None else mask[:, None, None]
    gathered = attend(agents, key, value, mask=mask, bias=bias_in, scale=scale)
    out = attend(
        query, agents, gathered, bias=bias_out, scale=scale if scale_out is None else scale_out
    )
    if not shortcut:
        return out
    check_shape("value", value, "b t h e", sizes)
    return out + (shortcut * value).astype(out.dtype)


def pooling_weights(
    count: int, length: int, mask: Bool[Array, "b t"] | None = None
) -> Float[Array, "#b n t"]:
    """Weights of adaptive average pooling of tokens: bin i is floor(i N/n) ... ceil((i+1) N/n).

    Args:
        count: bins n.
        length: tokens t.
        mask: True for real tokens, `[b, t]`, which alone are counted and pooled.

    Returns:
        `[b, n, t]`, rows that sum to one; b is 1 without a mask.

    Example:
        >>> pooling_weights(2, 3).tolist()
        [[[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]]
    """
    real = jnp.ones((1, length), bool) if mask is None else mask
    index = jnp.cumsum(real, axis=1)[:, None] - 1
    total = real.sum(1)[:, None, None]
    bins = jnp.arange(count)[:, None]
    first, end = bins * total // count, -(-(bins + 1) * total // count)
    inside = real[:, None] & (index >= first) & (index < end)
    return inside / jnp.maximum(inside.sum(-1, keepdims=True), 1)


def pool_agents(
    query: Float[Array, "b t h d"],
    grid: tuple[int, int],
    side: int,
    mask: Bool[Array, "b t"] | None = None,
) -> Float[Array, "b n h d"]:
    """Queries of an image averaged over side x side regions, which may overlap.

    Args:
        query: `[b, t, h, d]`, t the cells of the grid row by row.
        grid: its height and width.
        side: regions along each; n = side^2.
        mask: True for real cells, which alone are averaged.

    Returns:
        `[b, n, h, d]`.

    Raises:
        ValueError: tokens that are not those of the grid.

    Example:
        >>> pool_agents(jnp.ones((1, 15, 2, 4)), (3, 5), 2).shape
        (1, 4, 2, 4)
    """
    b, t, h, d = query.shape
    if t != grid[0] * grid[1]:
        raise ValueError(f"query: expected {grid[0]} x {grid[1]} tokens, got {t}")
    rows, columns = (pooling_weights(side, length)[0].astype(query.dtype) for length in grid)
    mean = lambda image: jnp.einsum("ny,mx,byxhd->bnmhd", rows, columns, image)
    image = query.reshape(b, *grid, h, d)
    if mask is None:
        return mean(image).reshape(b, side**2, h, d)
    real = mask.reshape(b, *grid, 1, 1)
    share = mean(real.astype(query.dtype))
    out = mean(jnp.where(real, image, 0)) / jnp.where(share == 0, 1, share)
    return out.reshape(b, side**2, h, d)


def image_biases(
    params: dict[str, Array], grid: tuple[int, int]
) -> tuple[Float[Array, "h n s"], Float[Array, "h t n"]]:
    """B_1 and B_2: small images made as large as the grid, and rows and columns of their own.

    Args:
        params: `an`, `na` `[h, n, 7, 7]`; `ah` `[h, n, y, 1]`, `aw` `[h, n, 1, x]`;
            `ha` `[h, y, 1, n]`, `wa` `[h, 1, x, n]`; with a class token `ac` `[h, n, 1]` and
            `ca` `[h, 1, n]`, which come first.
        grid: height y and width x.
    """
    heads, n = params["an"].shape[:2]

    def enlarged(image):
        shape = (heads, n, *grid)
        return jax.image.resize(image, shape, "bilinear", antialias=False)

    into = (enlarged(params["an"]) + params["ah"] + params["aw"]).reshape(heads, n, -1)
    out = jnp.moveaxis(enlarged(params["na"]), 1, -1) + params["ha"] + params["wa"]
    out = out.reshape(heads, -1, n)
    if "ac" in params:
        into = jnp.concatenate([params["ac"], into], axis=2)
        out = jnp.concatenate([params["ca"], out], axis=1)
    return into, out


def image_agent_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    biases: dict[str, Array],
    convolution: dict[str, Array],
    *,
    grid: tuple[int, int],
    mask: Bool[Array, "b t"] | None = None,
) -> Float[Array, "b t h e"]:
    """Agent attention of an image, with its biases and its convolution.

    Args:
        query, key, value: of the cells row by row, after the class token if `biases` has `ac`.
        biases: as in `image_biases`.
        convolution: `weight` `[3, 3, h e]` and `bias` `[h e]`; the class token takes no part.
        grid: height and width.
        mask: True for real tokens, `[b, t]`.

    Raises:
        ValueError: tokens that are not those of the grid.

    Reference:
        arXiv 2312.08874.

    Example:
        >>> mixer = make(dim=8, heads=2, agents=4, grid=(3, 5))
        >>> params = mixer.init(jax.random.key(0))
        >>> x = jnp.ones((1, 15, 2, 4))
        >>> image_agent_attention(
        ...     x, x, x, params["biases"], params["convolution"], grid=(3, 5)
        ... ).shape
        (1, 15, 2, 4)
    """
    extra = int("ac" in biases)
    side = round(biases["an"].shape[1] ** 0.5)
    cells_real = None if mask is None else mask[:, extra:]
    chosen = pool_agents(query[:, extra:], grid, side, cells_real)
    bias_in, bias_out = image_biases(biases, grid)
    out = agent_attention(
        query, key, value, chosen, bias_in=bias_in[None], bias_out=bias_out[None], mask=mask
    )
    cells = value[:, extra:] if mask is None else jnp.where(mask[..., None, None], value, 0)
    image = cells[:, -grid[0] * grid[1] :].reshape(len(value), *grid, -1)
    detail = depthwise(image, **convolution).reshape(len(value), -1, *value.shape[2:])
    return out + jnp.pad(detail, ((0, 0), (extra, 0), (0, 0), (0, 0)))


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    agents: int = 4,
    grid: tuple[int, int] | None = None,
    class_token: bool = False,
) -> Mixer:
    """Agent attention between projections, with its convolution.

    Tokens are a sequence, or the cells of an image row by row. A sequence pools its queries over
    stretches of tokens and convolves over 3 of them; an image pools squares, convolves over 3 x 3
    cells, and has the learned biases of the paper.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m.
        causal: False; there is no causal form.
        agents: n; for an image a square number.
        grid: height and width of an image; None for a sequence of any length.
        class_token: whether one more token stands before those of the image.

    Returns:
        A `Mixer`.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=2, agents=4, grid=(3, 5))
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 15, 8))).shape
        (1, 15, 8)
    """
    if causal:
        raise ValueError("causal: agent_attention has no causal form; pass causal=False")
    check_heads(dim, heads)
    check_count("agents", agents)
    check_flag("class_token", class_token)
    grid = None if grid is None else check_grid(grid)
    side = round(agents**0.5)
    if grid is not None and side**2 != agents:
        raise ValueError(f"agents: expected at least 1, a square for an image, got {agents}")
    if class_token and grid is None:
        raise ValueError("class_token: only an image has one; pass grid")

    def init(key):
        shared, filters, biases = jax.random.split(key, 3)
        taps = (3,) if grid is None else (3, 3)
        bound = 3.0 ** (-len(taps) / 2)
        weight = jax.random.uniform(filters, (*taps, dim), minval=-bound, maxval=bound)
        params: dict[str, Any] = qkvo_init(shared, dim, heads)
        params["convolution"] = {"weight": weight, "bias": jnp.zeros(dim)}
        if grid is not None:
            y, x = grid
            shapes = {
                "an": (heads, agents, SMALL, SMALL), "na": (heads, agents, SMALL, SMALL),
                "ah": (heads, agents, y, 1), "aw": (heads, agents, 1, x),
                "ha": (heads, y, 1, agents), "wa": (heads, 1, x, agents),
            }  # fmt: skip
            if class_token:
                shapes |= {"ac": (heads, agents, 1), "ca": (heads, 1, agents)}
            keys = jax.random.split(biases, len(shapes))
            params["biases"] = {
                name: BIAS_STD * jax.random.truncated_normal(k, -2, 2, shape)
                for k, (name, shape) in zip(keys, shapes.items(), strict=True)
            }
        return params

    def apply(parts, params, given):
        x, real = given.x, given.real
        batch, length, _ = x.shape
        query, keys, value = split_qkv(parts.project(params, x, x), heads, heads)
        if grid is not None:
            check_shape("x", x, "b t m", {"t": grid[0] * grid[1] + class_token})
            out = image_agent_attention(
                query, keys, value, params["biases"], params["convolution"], grid=grid, mask=real
            )
            return parts.output(params, merge_heads(out), x)
        weights = pooling_weights(agents, length, real).astype(x.dtype)
        weights = jnp.broadcast_to(weights, (batch, agents, length))
        chosen = jnp.einsum("bnt,bthd->bnhd", weights, query)
        out = merge_heads(agent_attention(query, keys, value, chosen, mask=real))
        cells = value if real is None else jnp.where(real[..., None, None], value, 0)
        detail = depthwise(merge_heads(cells), **params["convolution"])
        return parts.output(params, out + detail, x)

    return framed_parts(
        "agent_attention",
        Parts(project_qkv, None, project_output),
        dim=dim,
        init=init,
        apply=apply,
        takes="row" if grid is None else "padding",
        causal=False,
    )


MECHANISM = Mechanism(
    name="agent_attention",
    title="Agent attention",
    arxiv="2312.08874",
    family="linear",
    equation="o = softmax(s Q A^T) softmax(s A K^T) V + DWC(V), agents A pooled from Q",
    core=agent_attention,
    make=make,
    causal=False,
    bidirectional=True,
    cross=False,
    streaming=False,
    cost="linear",
    documents="never",
    parameters=("convolution",),
)
