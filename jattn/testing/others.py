"""What every gate, pool and pointer must do, besides what mechanisms of all kinds do."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jattn.mechanisms.mechanism import Mechanism, build
from jattn.testing import common
from jattn.testing.case import (
    BATCH,
    DIM,
    TOKENS,
    Case,
    as_numpy,
    close,
    draw,
    plain_errors,
    refused,
)

IMAGE = (BATCH, 2, TOKENS // 2, DIM)  # as many pixels as tokens
QUERIES = 4


def make_gate(mechanism: Mechanism, causal: bool) -> Case:
    """A gate, with tokens."""
    gate = build(mechanism, dim=DIM)
    return Case(mechanism, causal, gate, (draw(1, BATCH, TOKENS, DIM),), gate.apply, where=1)


def make_pool(mechanism: Mechanism, causal: bool) -> Case:
    """A pool, with tokens."""
    pool = build(mechanism, dim=DIM)
    return Case(mechanism, causal, pool, (draw(1, BATCH, TOKENS, DIM),), pool.apply, where=None)


def make_pointer(mechanism: Mechanism, causal: bool) -> Case:
    """A pointer, with queries, and tokens to point at."""
    pointer = build(mechanism, dim=DIM)
    inputs = draw(1, BATCH, QUERIES, DIM), draw(4, BATCH, TOKENS, DIM)
    return Case(mechanism, causal, pointer, inputs, pointer.apply, where=2)


def gated(case: Case) -> None:
    """Outputs are the features times the factors, over tokens and over images."""
    x = case.inputs[0]

    @jax.jit
    def both(params, x, image):
        factors = (case.made.factors(params, array) for array in (x, image))
        return *factors, case.run(params, image)

    factors, of_image, y = as_numpy(both(case.params, x, image := x.reshape(IMAGE)))
    close(x * factors, case.y)
    assert y.shape == IMAGE, f"expected the image's shape {IMAGE}, got {y.shape}"
    close(image * of_image, y)
    if case.mechanism.equivariant:  # pixels have no order either
        close(y.reshape(x.shape), case.y)


def pooled(case: Case) -> None:
    """Outputs are k tokens in each row, however many go in; finite where all are padding."""
    x, y = case.inputs[0], case.y
    assert y.ndim == 3, f"expected [b, k, m], got shape {y.shape}"
    assert (len(y), y.shape[2]) == (BATCH, DIM), f"expected [{BATCH}, k, {DIM}], got {y.shape}"
    for n in (1, 2 * TOKENS):
        more = jax.eval_shape(case.run, case.params, jax.ShapeDtypeStruct((BATCH, n, DIM), x.dtype))
        assert more.shape == y.shape, f"expected {y.shape} of {n} tokens, got {more.shape}"
    none, *gradients = case.masked(case.inputs, np.zeros((BATCH, TOKENS), bool))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((none, gradients)))


def pointed(case: Case) -> None:
    """Logits are one for each query and token, each query for itself; of padding they are -inf."""
    query, tokens = case.inputs
    expected = BATCH, QUERIES, TOKENS
    assert case.y.shape == expected, f"expected {expected}, got {case.y.shape}"
    real = np.arange(TOKENS) < np.array([[TOKENS], [2]])
    y = case.masked(case.inputs, real)[0]
    hidden = ~np.broadcast_to(real[:, None], y.shape)
    assert (y[hidden] == -np.inf).all(), "a logit of padding is not -inf"
    assert np.isfinite(y[~hidden]).all(), "a logit that is not finite"
    one = as_numpy(case.apply(case.params, query[:, 1:2], tokens))
    close(one, case.y[:, 1:2])


def empty_axes(case: Case) -> None:
    """No rows give none."""
    none = [jax.ShapeDtypeStruct((0, *x.shape[1:]), jnp.float32) for x in case.inputs]
    y = jax.eval_shape(case.run, case.params, *none)
    expected = (0, *case.weight.shape[1:])
    assert (y.shape, y.dtype) == (expected, jnp.float32), y


def bad_input(case: Case) -> None:
    """What does not fit is named in one line: what was expected, and what came."""
    m, params = case.mechanism, case.params
    run: Any = case.run
    *before, x = case.inputs
    name = "tokens" if m.kind == "pointer" else "x"
    call = lambda x, **keywords: lambda: run(params, *before, x, **keywords)
    words: dict[str, Callable[[], Any]] = {
        rf"{name}: expected .*axes \[b, .*m\], got shape \[6, 8\]": call(x[0]),
        rf"{name}: expected shape \[.*m=8\], got \[2, 6, 7\]": call(x[..., 1:]),
        rf"{name}: expected a floating array, got int32": call(x.astype(np.int32)),
        r"mask: expected shape \[b=2, .*=6\], got \[2, 5\]": call(x, mask=np.ones((2, 5), bool)),
        r"mask: expected a bool array, got float32": call(x, mask=np.ones((2, 6), np.float32)),
        r"params: expected those of .*, got none by the name of ": lambda: run({}, *case.inputs),
        r"params\[.*: expected shape .* got \[3, 3, 3\]": lambda: run(
            jax.tree.map(lambda _: np.zeros((3, 3, 3), np.float32), params), *case.inputs
        ),
        r"dim: expected an integer of at least 1, got 2.5": lambda: build(m, dim=2.5),  # type: ignore[arg-type]
        f"{m.name}: unknown option 'colour'; it has ": lambda: build(m, dim=DIM, colour="red"),
        f"causal: {m.name} is a {m.kind}": lambda: build(m, dim=DIM, causal=True),
    }
    if before:
        words |= {
            r"query: expected 3 axes \[b, t, m\], got shape \[4, 8\]": lambda: run(
                params, before[0][0], x
            ),
            r"tokens: expected shape \[b=1, .*, got \[2, 6, 8\]": lambda: run(
                params, before[0][:1], x
            ),
        }
    with plain_errors():
        for said, wrong in words.items():
            refused(wrong, said)


_ALL = (
    bad_input,
    empty_axes,
    common.operations,
    common.parameters,
    common.shapes_types_and_gradients,
    common.differences,
    common.vmap,
    common.order,
    common.padding,
    common.padding_takes_no_room,
)
GATE = (*_ALL, gated, common.eager)
POOL = (*_ALL, pooled, common.eager)
POINTER = (*_ALL, pointed, common.eager)
