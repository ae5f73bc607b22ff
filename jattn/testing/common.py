"""Checks for mechanisms of every kind; each says in its first line what must hold."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jattn.testing import flops
from jattn.testing.case import BATCH, HOLES, TOKENS, Case, as_numpy, close, leaves_by_name

# Bounds of log2(operations at 2n / operations at n), by the trait `cost`. What is linear in a
# quadratic mechanism, as projections are, takes a little off.
GROWTH = {"linear": (0.95, 1.05), "n*w": (0.95, 1.1), "n log n": (1.0, 1.4), "quadratic": (1.8, 2)}


def parameters(case: Case) -> None:
    """Parameters are float32, and have the names that the entry says."""
    m = case.mechanism
    named = set(m.parameters)
    if m.kind == "mixer":
        named |= {"query", "key", "value", "output"}
        assert named.issuperset(m.absent), f"absent: {set(m.absent) - named} are no parameters"
        named -= set(m.absent)
    got = set(case.params)
    # A causal form may do without some that the other has.
    fits = got <= named if case.causal and m.bidirectional else got == named
    assert fits, f"expected {sorted(named)}, got {sorted(got)}"
    types = {name: leaf.dtype.name for name, leaf in leaves_by_name(case.params).items()}
    assert set(types.values()) <= {"float32"}, types


def shapes_types_and_gradients(case: Case) -> None:
    """Outputs have the type of x, in two precisions; gradients are finite, and not zero."""
    m = case.mechanism
    for dtype in (jnp.float32, jnp.bfloat16):
        full = dtype == jnp.float32
        given = jax.tree.map(lambda x, dtype=dtype: x.astype(dtype), case.inputs)
        shape = jax.eval_shape(case.run, case.params, *given)
        expected = (case.weight.shape, dtype)
        assert (shape.shape, shape.dtype) == expected, f"expected {expected}, got {shape}"
        y, of_params, of_inputs = case.plain if full else case.gradient(case.params, given)
        assert np.isfinite(y).all(), "an output that is not finite"
        gradients = leaves_by_name({"params": of_params, "inputs": of_inputs})
        for path, gradient in gradients.items():
            assert np.isfinite(gradient).all(), f"{path}: a gradient that is not finite"
            whole = path.split("/", 1)[1]
            name = whole.split("/")[0]
            if name in m.statistics:
                assert not gradient.any(), f"{path}: an average over training that has a gradient"
            elif name not in m.idle and whole not in m.idle:
                assert gradient.any(), f"{path}: a gradient that is zero throughout"
        close(y, case.y, 2e-5 if full else 0.1)


def eager(case: Case) -> None:
    """Without `jit` outputs are the same; every operation is a program to compile."""
    params, inputs = jax.tree.map(jnp.asarray, (case.params, case.inputs))
    close(np.asarray(case.run(params, *inputs)), case.y)


def vmap(case: Case) -> None:
    """Mapped over a leading axis, outputs are the same."""
    close(case.many["same"], case.y)
    close(case.many["other"], case.gradient(case.params, case.others["other"])[0])


def order(case: Case) -> None:
    """Where the entry says that tokens have no order, permuted ones give what it says; else not."""
    if case.causal:
        return
    expected = case.of_tokens(case.many["same"], case.permutation)
    got = case.many["permuted"]
    if case.mechanism.equivariant:
        close(got, expected)
    else:
        if case.mechanism.idle:  # it may begin as something that has no order
            rng = np.random.default_rng(3)
            params = jax.tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape), case.params)
            params = jax.tree.map(np.float32, params)
            pair = as_numpy([case.apply(params, *case.others[of]) for of in ("same", "permuted")])
            expected, got = case.of_tokens(pair[0], case.permutation), pair[1]
        assert np.abs(got - expected).max() > 1e-4, (
            "tokens have no order: expected equivariant=True"
        )


def padding(case: Case) -> None:
    """Nothing of padding reaches an output of a token, or a gradient: zeros, sevens or NaN."""
    mask = HOLES
    tokens = case.inputs[-1]
    hole = ~mask.reshape(mask.shape + (1,) * (tokens.ndim - 2))
    y, *gradients = case.masked(case.inputs, mask)
    seen = np.broadcast_to(case.seen(mask, y.ndim), y.shape)
    clean = lambda tree: jax.tree.map(lambda g: np.where(np.isnan(g), 7e7, g), tree)
    for garbage in (7.0, np.nan, np.inf):
        given = case.with_tokens(np.where(hole, np.float32(garbage), tokens))
        other, *found = case.masked(given, mask)
        close(np.where(seen, other, 0), np.where(seen, y, 0), 1e-6)
        jax.tree.map(lambda a, b: close(a, b, 1e-6), clean(found), gradients)
        of_tokens = found[1][-1]
        assert not of_tokens[np.broadcast_to(hole, of_tokens.shape)].any(), "padding has a gradient"


def padding_takes_no_room(case: Case) -> None:
    """Inside a sequence, before it and behind it: real tokens get what they get without it."""
    short, tokens = TOKENS - 2, case.inputs[-1]
    alone = as_numpy(case.apply(case.params, *case.with_tokens(tokens[:, :short])))
    for index in ([0, 1, 2, 3], [2, 3, 4, 5], [0, 1, 3, 4], [0, 2, 3, 5]):
        given, real = np.zeros_like(tokens), np.zeros((BATCH, TOKENS), bool)
        given[:, index], real[:, index] = tokens[:, :short], True
        if case.mechanism.positioned and index[-1] - index[0] >= short:
            positions = np.zeros((BATCH, TOKENS), np.int32)
            positions[:, index] = np.arange(short)
            keywords: dict[str, Any] = dict(mask=real, positions=positions)
            y = as_numpy(case.apply(case.params, *case.with_tokens(given), **keywords))
        else:
            y = case.masked(case.with_tokens(given), real)[0]
        close(case.of_tokens(y, index), alone)


def operations(case: Case) -> None:
    """Operations grow with the number of tokens as the entry's cost says."""

    def count(n):
        *before, tokens = case.inputs
        one = [jax.ShapeDtypeStruct((1, *x.shape[1:]), jnp.float32) for x in before]
        rest = tokens.shape[2:]
        return flops.count(
            case.run, case.params, *one, jax.ShapeDtypeStruct((1, n, *rest), jnp.float32)
        )

    # Of gates, pools and pointers, what is fixed, or linear beside what is quadratic, is most of
    # what they do at these lengths; differences are without it.
    first = lambda n: count(2 * n) - count(n)
    second = lambda n: count(3 * n) - 2 * count(2 * n) + count(n)
    if case.mechanism.kind == "mixer":
        growth = math.log2(count(256) / count(128))
    else:
        grown, n = (second, 64) if case.mechanism.cost == "quadratic" else (first, 128)
        growth = math.log2(grown(2 * n) / grown(n))
    low, high = GROWTH[case.mechanism.cost]
    assert low <= growth <= high, f"{case.mechanism.cost}: grow as n^{growth:.3f}"


def differences(case: Case) -> None:
    """Gradients are those of differences, in float64."""
    with jax.enable_x64(True):
        point = jax.tree.map(lambda x: np.asarray(x, np.float64), (case.params, case.inputs))
        rng = np.random.default_rng(0)
        direction = jax.tree.map(lambda x: rng.standard_normal(x.shape), point)
        for name in case.mechanism.statistics:
            direction[0][name] = jax.tree.map(np.zeros_like, direction[0][name])
        weight = case.weight.astype(np.float64)

        def along(size):
            moved = jax.tree.map(lambda x, d: x + size * d, point, direction)
            y, *gradients = case.gradient(*moved)
            assert y.dtype == np.float64, f"expected outputs in float64, got {y.dtype}"
            return float((weight * y).sum()), tuple(gradients)

        products = jax.tree.map(lambda g, d: float((g * d).sum()), along(0.0)[1], direction)
        slope = sum(jax.tree.leaves(products))
        measured = (along(1e-6)[0] - along(-1e-6)[0]) / 2e-6
    assert abs(slope - measured) <= max(1e-6 * abs(measured), 1e-7), (slope, measured)
