"""What every token mixer must do, besides what mechanisms of all kinds do."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jattn.attention import masks
from jattn.mechanisms.mechanism import Mechanism, build
from jattn.testing import common
from jattn.testing.case import (
    BATCH,
    DIM,
    HEADS,
    TOKENS,
    Case,
    as_numpy,
    close,
    draw,
    plain_errors,
    refused,
)


def make_case(mechanism: Mechanism, causal: bool) -> Case:
    """A mixer in one of its forms, with tokens."""
    mixer = build(mechanism, dim=DIM, heads=HEADS, causal=causal)
    x = draw(1, BATCH, TOKENS, DIM)
    return Case(mechanism, causal, mixer, (x,), mixer.apply, where=1)


def causality(case: Case) -> None:
    """The past does not see the future if causal; else it does."""
    changed = np.abs(case.many["moved"] - case.many["same"]).max((0, 2)) > 1e-6
    assert changed[3:].any(), "a token changes no output from its own on"
    if case.causal:
        assert not changed[:3].any(), "an output depends on a later token"
    else:
        assert changed[:3].any(), "no output depends on a later token"


def documents(case: Case) -> None:
    """Packed documents give what each gives apart; or they are refused in one line."""
    ids, x = np.array([[5, 5, 5, 5, 2, 2], [1, 1, 8, 8, 8, 8]]), case.inputs[0]
    honoured = case.mechanism.documents
    packed = lambda: case.apply(case.params, x, mask=masks.segments(jnp.asarray(ids)))
    if honoured == "never" or (honoured == "causal" and not case.causal):
        refused(packed, r"mask: .* expected padding, .*; got segments")
        return
    y = as_numpy(packed())
    for row, parts in enumerate(([0, 4, 6], [0, 2, 6])):
        apart, real = np.zeros_like(x), np.zeros((BATCH, TOKENS), bool)
        for document, (first, end) in enumerate(itertools.pairwise(parts)):
            apart[document, : end - first] = x[row, first:end]
            real[document, : end - first] = True
        alone = case.masked((apart,), real)[0]
        for document, (first, end) in enumerate(itertools.pairwise(parts)):
            close(y[row, first:end], alone[document, : end - first])


def empty_axes(case: Case) -> None:
    """No tokens, or no rows, give none."""
    for shape in ((BATCH, 0, DIM), (0, TOKENS, DIM), (0, 0, DIM)):
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        y = jax.eval_shape(case.run, case.params, x)
        assert (y.shape, y.dtype) == (shape, jnp.float32), y


def steps(case: Case) -> None:
    """One token at a time gives what the whole gives, where the entry says that it streams."""
    mixer, streaming = case.made, case.causal and case.mechanism.streaming
    assert (mixer.step is not None) == (mixer.init_state is not None), "a step without a state"
    if case.causal:
        assert (mixer.step is not None) == streaming, f"streaming: expected {streaming}"
    if not streaming:
        return

    @jax.jit
    def decode(params, x):
        def step(state, token):
            y, state = mixer.step(params, token, state)
            return state, y

        state = mixer.init_state(params, BATCH, TOKENS)
        return jnp.moveaxis(jax.lax.scan(step, state, jnp.moveaxis(x, 1, 0))[1], 0, 1)

    close(as_numpy(decode(case.params, case.inputs[0])), case.y)


def context(case: Case) -> None:
    """Tokens of a context are attended to and those of its padding are not; or it is refused."""
    apply, params, x = case.apply, case.params, case.inputs[0]
    other = draw(3, BATCH, TOKENS - 2, DIM)
    if not case.mechanism.cross:
        refused(lambda: apply(params, x, context=other), "context: ")
        return
    if case.causal and case.mechanism.bidirectional:  # the other form says the same
        return
    real = np.broadcast_to(np.arange(TOKENS - 2) < 2, (BATCH, TOKENS - 2))
    garbage = np.where(real[..., None], other, np.float32(np.nan))

    @jax.jit
    def all_of_them(params, x, other, garbage, real):
        return (
            case.run(params, x, context=other),
            case.run(params, x, context=x),
            case.run(params, x, context=garbage, mask=real),
            case.run(params, x, context=other[:, :2]),
        )

    crossed, itself, padded, short = as_numpy(all_of_them(params, x, other, garbage, real))
    assert crossed.shape == x.shape, crossed.shape
    assert np.abs(crossed - case.y).max() > 1e-3, "a context changes nothing"
    close(itself, case.y)
    close(padded, short)


def bad_input(case: Case) -> None:
    """What does not fit is named in one line: what was expected, and what came."""
    m, params, x = case.mechanism, case.params, case.inputs[0]
    run: Any = case.run
    both = case.mechanism.causal and case.mechanism.bidirectional
    usual: dict[str, Any] = dict(dim=DIM, heads=HEADS, causal=case.causal)
    make = lambda **options: build(m, **(usual | options))
    words = {
        r"x: expected 3 axes \[b, t, m\], got shape \[6, 8\]": lambda: run(params, x[0]),
        r"x: expected shape \[.*m=8\], got \[2, 6, 7\]": lambda: run(params, x[..., 1:]),
        r"mask: expected shape \[b=2, s=6\], got \[2, 5\]": lambda: run(
            params, x, mask=np.ones((BATCH, TOKENS - 1), bool)
        ),
        r"mask: expected a bool array, got float32": lambda: run(
            params, x, mask=np.zeros((BATCH, TOKENS), np.float32)
        ),
        r"mask: expected a Mask, a bool array or .*, got \[True\]": lambda: run(
            params, x, mask=[True]
        ),
        r"mask: expected a Mask, got the function that makes it: causal\(\.\.\.\)": lambda: run(
            params, x, mask=masks.causal
        ),
        r"mask: \[2, 2\] may be padding .* say which by jattn.masks.padding": lambda: run(
            params, x[:, :BATCH], mask=np.ones((BATCH, BATCH), bool)
        ),
        r"x: expected a floating array, got int32": lambda: run(params, x.astype(np.int32)),
        r"positions: expected an integer array, got float32": lambda: run(
            params, x, positions=np.zeros((BATCH, TOKENS), np.float32)
        ),
        r"params: expected those of .*, got none by the name of ": lambda: run({"output": 0.0}, x),
        r"params\[.*: expected shape .* got \[3\]": lambda: run(
            jax.tree.map(lambda _: np.zeros(3, np.float32), params), x
        ),
        r"heads: expected a divisor of dim=8, got 3": lambda: make(heads=3),
        f"{m.name}: unknown option 'colour'; it has ": lambda: make(colour="red"),
    }
    if not both:
        words["causal: "] = lambda: make(causal=not case.causal)
    with plain_errors():
        for said, call in words.items():
            refused(call, said)


# What needs no program comes first.
CHECKS = (
    bad_input,
    empty_axes,
    common.operations,
    common.parameters,
    common.shapes_types_and_gradients,
    common.differences,
    common.vmap,
    causality,
    common.order,
    common.padding,
    common.padding_takes_no_room,
    documents,
    steps,
    context,
    common.eager,
)
