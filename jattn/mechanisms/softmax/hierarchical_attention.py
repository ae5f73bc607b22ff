"""Hierarchical self-attention (arXiv 2509.15448): softmax in blocks of a tree.

Tokens are the leaves of a tree. All pairs of tokens below two siblings B and C share one weight,
so a family of siblings is one small attention between their means:

    s(B, C) = q_B . k_C / sqrt(d) + e_B . e_C                 means over leaves; e: index in family
    Z_B = exp(-phi(B)) + sum_{C sibling of B} |C| exp(s(B, C))
    phi(leaf) = -s(leaf, leaf),   phi(A) = -sum_{B child of A} |B| / |A| ln Z_B      upwards
    mass(root) = 1,   mass(B) = mass(A) exp(-phi(B)) / Z_B                           downwards
    y_i = mass(i) v_i + sum_{A above i} mass(A) / Z_B sum_C |C| exp(s(B, C)) v_C     B: A's, over i

Distinctive: among all matrices whose rows sum to one and whose blocks are constant it is the one
with the least sum_i KL(weights_i || softmax_i), found exactly by dynamic programming, in n b
operations for families of b instead of n^2. A family is one `attend`: the mass kept inside B is a
sink, the sizes of siblings a bias, and its log-sum-exp is ln Z.

Limits: a tree of one family is softmax attention; so is any tree whose blocks have equal queries
and keys. There is no causal form.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jattn.attention import attend
from jattn.checks import check_choice, check_count, check_flag, check_shape
from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.layers.heads import (
    merge_heads,
    project_output,
    project_qkv,
    qkvo_init,
    split_qkv,
)
from jattn.mechanisms.layers.linear_maps import linear_init
from jattn.mechanisms.layers.norms import rms_norm
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer, Parts

SCORES = ("dot", "distance")

# Families from the leaves up: the children of each node, by index in the level below, -1 for none.
Tree = Sequence[Int[Array, "_ _"] | Int[np.ndarray, "_ _"]]


def balanced_tree(length: int, branching: int | Sequence[int]) -> list[np.ndarray]:
    """Neighbours in families, and these in families, up to one root.

    Args:
        length: number of leaves.
        branching: children of a node, for all levels or for each from the leaves up.

    Raises:
        ValueError: families that leave more than one root, or of less than two.

    Example:
        >>> [family.tolist() for family in balanced_tree(5, 3)]
        [[[0, 1, 2], [3, 4, -1]], [[0, 1, -1]]]
    """
    if length < 1:
        raise ValueError(f"length: expected at least 1, got {length}")
    every = isinstance(branching, int)
    sizes = [branching] if isinstance(branching, int) else list(branching)
    if not sizes or min(sizes) < 2:
        raise ValueError(f"branching: expected families of at least 2, got {branching}")
    tree, count = [], length
    while not tree or count > 1:
        if not every and len(tree) == len(sizes):
            raise ValueError(f"branching: expected one root of {length} leaves, {count} are left")
        size = sizes[0] if every else sizes[len(tree)]
        nodes = -(-count // size)
        index = np.arange(nodes * size).reshape(nodes, size)
        tree.append(np.where(index < count, index, -1))
        count = nodes
    return tree


def tree_of_segments(segments: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """The tree of which each level's nodes belong to the segments of those numbers.

    Args:
        segments: from the leaves up, the parent 0, 1, ... of each node. A root over the last
            level is added.

    Raises:
        ValueError: a level of another size than the number of segments below it.

    Example:
        >>> [family.tolist() for family in tree_of_segments([[0, 0, 1]])]
        [[[0, 1], [2, -1]], [[0, 1]]]
    """
    if not segments:
        raise ValueError("segments: expected one level at least, got none")
    tree, expected = [], len(segments[0])
    for parents in [*segments, None]:
        parents = np.zeros(expected, int) if parents is None else np.asarray(parents)
        if parents.shape != (expected,) or set(parents) != set(range(parents.max() + 1)):
            raise ValueError(
                f"segments: expected {expected} parents numbered from 0 without gaps, "
                f"got {parents.tolist()}"
            )
        families = [np.flatnonzero(parents == node) for node in range(parents.max() + 1)]
        family = np.full((len(families), max(map(len, families))), -1)
        for node, children in enumerate(families):
            family[node, : len(children)] = children
        tree.append(family)
        expected = len(families)
    return tree


def tree_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    tree: Tree,
    *,
    sibling_positions: Float[Array, "n p"] | None = None,
    scale: float | None = None,
    score: str = "dot",
    mask: Bool[Array, "b t"] | None = None,
    return_energy: bool = False,
) -> Any:  # One array, or with `return_energy` a pair: see Returns.
    """Attention whose weights are constant between siblings of a tree.

    Args:
        query, key, value: `[b, t, h, d]`, `[b, t, h, d]`, `[b, t, h, e]`.
        tree: families from the leaves up, `[nodes, children]` each, by index in the level below
            (-1: none), the last of one node. See `balanced_tree` and `tree_of_segments`.
        sibling_positions: e of the first, second, ... child of a family; default 0.
        scale: default d^-0.5.
        score: `"dot"`, the mean of scale q.k, or `"distance"`, of -scale |q - k|^2 / 2. Where
            queries and keys have one length they give the same weights.
        mask: True for real tokens; others are in no family.
        return_energy: also return phi(root).

    Returns:
        `[b, t, h, e]` in query's dtype; with `return_energy` the pair of it and phi(root) `[b, h]`.

    Raises:
        ValueError: shapes that do not fit, or a tree with more than one root.

    Reference:
        arXiv 2509.15448.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 6, 2, 4))
        >>> jax.jit(lambda x: tree_attention(x, x, x, balanced_tree(6, 3)))(x).shape
        (1, 6, 2, 4)
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("key", key, "b t h d", sizes)
    check_shape("value", value, "b t h e", sizes)
    check_choice("score", score, SCORES)
    tree = [jnp.asarray(family) for family in tree]
    if not tree or any(family.ndim != 2 for family in tree) or len(tree[-1]) != 1:
        raise ValueError(f"tree: expected levels [n, b] up to one root, got {len(tree)} levels")
    b, t, h = sizes["b"], sizes["t"], sizes["h"]
    factor = sizes["d"] ** -0.5 if scale is None else scale
    dtype = query.dtype
    wide = jnp.promote_types(jnp.result_type(query, key, value), jnp.float32)
    query, key, value = (x.astype(wide) for x in (query, key, value))
    real = jnp.ones((b, t), bool) if mask is None else mask

    if score == "distance":
        # |q|^2 and |k|^2 join the product as one more channel each, so they are averaged with it.
        square = lambda x: -(x**2).sum(-1, keepdims=True) / 2
        one = jnp.ones_like(query[..., :1])
        query, key = (
            jnp.concatenate([query, square(query), one], -1),
            jnp.concatenate([key, one, square(key)], -1),
        )
    largest = max(family.shape[1] for family in tree)
    siblings = jnp.zeros((largest, 1)) if sibling_positions is None else sibling_positions
    if len(siblings) < largest:
        raise ValueError(f"sibling_positions: expected at least {largest}, got {len(siblings)}")
    nearness = siblings.astype(wide) @ siblings.astype(wide).T

    leaf_value = value
    # Upwards: |B|, means of q, k and v, and phi.
    count = real.astype(wide)
    own = (
        jnp.zeros((t,), wide)
        .at[tree[0]]
        .add(  # e . e of each leaf in its family
            jnp.where(tree[0] < 0, 0, jnp.diagonal(nearness)[: tree[0].shape[1]])
        )
    )
    phi = -(factor * (query * key).sum(-1) + own[None, :, None])
    phi = jnp.where(real[..., None], phi, 0)
    families = []
    for family in tree:
        n, width = family.shape

        def gather(x, family=family):
            return jnp.take(x, jnp.maximum(family, 0), axis=1)

        size = jnp.where(family >= 0, gather(count), 0)
        q, k, v, inside = (gather(x) for x in (query, key, value, phi))
        fold = lambda x, n=n: x.reshape(b * n, *x.shape[2:])
        there = fold(size) > 0
        bias = jnp.log(jnp.where(there, fold(size), 1))[:, None, None]
        bias = bias + nearness[:width, :width]
        others = there[:, None, None] & ~jnp.eye(width, dtype=bool)
        out, log_z = attend(
            fold(q), fold(k), fold(v), mask=others, bias=bias, scale=factor,
            sink=-fold(inside), return_lse=True,
        )  # fmt: skip
        unfold = lambda x, n=n: x.reshape(b, n, *x.shape[1:])
        log_z = unfold(log_z)
        families.append((family, unfold(out), jnp.exp(-inside - log_z)))
        total = size.sum(-1)
        share = size / jnp.maximum(total, 1)[..., None]
        mean = lambda x, share=share: jnp.einsum("bnw,bnwhd->bnhd", share, x)
        query, key, value = mean(q), mean(k), mean(v)
        phi = -jnp.einsum("bnw,bnwh->bnh", share, log_z)
        count = total

    # Downwards: what is gathered outside of a node, and the mass that is kept inside.
    mass = jnp.ones((b, 1, h), wide)
    gathered = jnp.zeros((b, 1, h, sizes["e"]), wide)
    for level in reversed(range(len(families))):
        family, out, kept = families[level]
        below = t if level == 0 else len(tree[level - 1])
        # Those that are no children are put on one more node, which is dropped.
        index = jnp.where(family < 0, below, family)

        def scatter(x, index=index, below=below):
            return jnp.zeros((b, below + 1, *x.shape[3:]), wide).at[:, index].set(x)[:, :below]

        gathered = scatter(gathered[:, :, None] + mass[:, :, None, :, None] * out)
        mass = scatter(mass[:, :, None] * kept)
    y = (gathered + mass[..., None] * leaf_value).astype(dtype)
    return (y, phi[:, 0]) if return_energy else y


def tree_divergence(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    tree: Tree,
    *,
    scale: float | None = None,
) -> Float[Array, "b h"]:
    """Divergence of the tree's weights from softmax's: sum_i KL(weights_i || softmax_i).

    It is sum_i lse_i + t phi(root), lse of the scores q.k: no weights are made.

    Args:
        query, key: `[b, t, h, d]`.
        tree: as for `tree_attention`.
        scale: default d^-0.5.

    Returns:
        `[b, h]`, at least 0 up to rounding.

    Reference:
        arXiv 2509.15448.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 6, 2, 4))
        >>> one = balanced_tree(6, 6)  # one family: softmax itself
        >>> found = jax.jit(lambda x: tree_divergence(x, x, one))(x)
        >>> bool((abs(found) < 1e-4).all())
        True
    """
    value = key[..., :1]
    _, lse = attend(query, key, value, scale=scale, return_lse=True)
    _, energy = tree_attention(query, key, value, tree, scale=scale, return_energy=True)
    return lse.sum(1) + query.shape[1] * energy


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    branching: int = 4,
    qk_norm: bool = True,
    score: str = "dot",
    sibling_dim: int = 0,
) -> Mixer:
    """Makes the mixer, over a tree of neighbours.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m.
        causal: False; there is no causal form.
        branching: tokens or nodes in a family.
        qk_norm: queries and keys of norm sqrt(d), as in the paper; False to stand in for a trained
            softmax layer.
        score: `"dot"` or `"distance"`; see `tree_attention`.
        sibling_dim: size of learned vectors of indices in a family, `sibling`; 0 for none.

    Raises:
        ValueError: an unknown value, or a size that does not fit.

    Example:
        >>> mixer = make(dim=32, heads=4)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """
    if causal:
        raise ValueError("causal: hierarchical_attention has no causal form; pass causal=False")
    check_heads(dim, heads)
    check_choice("score", score, SCORES)
    check_count("branching", branching, 2)
    check_count("sibling_dim", sibling_dim, 0)
    check_flag("qk_norm", qk_norm)

    def init(key):
        shared, own = jax.random.split(key)
        params = qkvo_init(shared, dim, heads)
        if sibling_dim:
            params["sibling"] = linear_init(own, branching, sibling_dim)
        return params

    def apply(parts, params, given):
        x, real = given.x, given.real
        query, keys, value = split_qkv(parts.project(params, x, x), heads, heads)
        if qk_norm:
            query, keys = rms_norm(query), rms_norm(keys)
        out = tree_attention(
            query,
            keys,
            value,
            balanced_tree(x.shape[1], branching),
            sibling_positions=params.get("sibling"),
            score=score,
            mask=real,
        )
        return parts.output(params, merge_heads(out), x)

    return framed_parts(
        "hierarchical_attention",
        Parts(project_qkv, None, project_output),
        dim=dim,
        init=init,
        apply=apply,
        takes="row",
        causal=False,
    )


MECHANISM = Mechanism(
    name="hierarchical_attention",
    title="Hierarchical self-attention",
    arxiv="2509.15448",
    family="softmax",
    equation="argmin of sum_i KL(w_i || softmax_i) over w constant in blocks of a tree; o = w v",
    core=tree_attention,
    make=make,
    causal=False,
    bidirectional=True,
    cross=False,
    streaming=False,
    cost="linear",
    documents="never",
)
