"""The wrong things people give to the engines: the right value, or one line that names it."""

import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jattn
from jattn import masks
from jattn.attention import attend_columns, decode, merge, scores

pytestmark = pytest.mark.usefixtures("plain_checks")
X = jnp.ones((2, 6, 2, 4))
WRONG = [
    None, True, False, 0, 1, -1, 2**31, 2**40, 2.5, -0.5, float("nan"), float("inf"), 1e300, 1j,
    "", "softmax", "cauchy", b"x", [], [[True]], (), {}, {"a": 1}, object(), type, int,
    masks.causal, masks.causal(), masks.prefix(3), scores.alibi(2), lambda: 0, lambda a, b: a,
    jnp.ones(()), jnp.ones(3), jnp.ones((2, 6)), jnp.ones((2, 6, 2)), jnp.ones((2, 6, 2, 5)),
    jnp.ones((2, 6, 3, 4)), jnp.ones((2, 6, 2, 4), int), jnp.ones((2, 6, 2, 4), bool),
    np.ones((2, 6, 2, 4), np.float64), np.ones((2, 6, 2, 4), complex),
    jnp.full((2, 6, 2, 4), jnp.nan),
    np.array([7, 2]), np.array([-1, 3]), np.array([2**40, 1]), jax.random.key(0), slice(3), ...,
]  # fmt: skip

CALLS = {
    "attend": (jattn.attend, dict(query=X, key=X, value=X)),
    "recur": (jattn.recur, dict(query=X, key=X, value=X)),
    "decode": (
        decode,
        dict(query=X[:, 0], key=X, value=X, lengths=jnp.array([3, 0])),
    ),
    "attend_columns": (
        attend_columns,
        dict(query=X, key=X, content=X, lse=jnp.zeros((2, 6, 2))),
    ),
    "merge": (merge, dict(a=(X, X[..., 0]), b=(X, X[..., 0]))),
    "causal": (masks.causal, {}),
    "sliding_window": (masks.sliding_window, dict(left=2)),
    "prefix": (masks.prefix, dict(length=2)),
    "segments": (masks.segments, dict(q_ids=jnp.zeros((2, 6), int))),
    "padding": (masks.padding, dict(real=jnp.ones((2, 6), bool))),
    "block_diagonal": (masks.block_diagonal, dict(size=2)),
    "from_array": (masks.from_array, dict(array=jnp.ones((6, 6), bool))),
    "from_function": (masks.from_function, dict(function=lambda b, h, i, j: i >= j)),
    "soft_cap": (scores.soft_cap, dict(cap=2.0)),
    "temperature": (scores.temperature, dict(tau=2.0)),
    "alibi": (scores.alibi, dict(slopes=2)),
    "relative_bias": (scores.relative_bias, dict(table=jnp.ones((2, 3)))),
    "t5_buckets": (scores.t5_buckets, dict(table=jnp.ones((8, 2)))),
    "decay": (scores.decay, dict(log_decay=jnp.zeros((2, 6, 2)))),
}
ARGUMENTS = [
    (name, argument)
    for name, (function, _) in CALLS.items()
    for argument in inspect.signature(function).parameters
]


def used(made: Any):
    """What is made of it in the end: a mask or a modification shows its faults in use."""
    if isinstance(made, masks.Mask):
        return jattn.attend(X, X, X, mask=made)
    modification: Any = made
    return jattn.attend(X, X, X, score_mod=modification) if callable(made) else made


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.sampled_from(ARGUMENTS), st.sampled_from(range(len(WRONG))))
def test_wrong_things_are_named(place, index):
    (name, argument), value = place, WRONG[index]
    function, given_arguments = CALLS[name]
    try:
        # Shapes and messages are all that is wanted: no program is made.
        jax.eval_shape(lambda: used(function(**{**given_arguments, argument: value})))
    except (ValueError, NotImplementedError) as error:
        caught = error
    else:
        return
    message = str(caught).split("\n--------------------")[0]
    if isinstance(caught, NotImplementedError):
        words = ["implementation", "mode", "return_weights"]
    else:
        assert re.search("expected|has no truth value", message), message
        words = [argument, "mask", "shape", "heads", "a" if argument == "b" else "b"]
    assert "\n" not in message
    assert any(word in message for word in words), message


BIG = 2**40


CROSS, EDGES = [[1, 0, 1], [0, 1, 0], [1, 0, 1]], [[0, 0, 1], [0, 1, 0], [0, 0, 0]]
EXACT = {
    "all": (lambda: masks.causal(2**31 - 1), np.ones((3, 3))),
    "none": (lambda: masks.causal(-(2**31)), np.zeros((3, 3))),
    "far": (lambda: masks.causal(BIG), np.ones((3, 3))),
    "far window": (lambda: masks.sliding_window(BIG), np.tri(3)),
    "far right": (lambda: masks.sliding_window(2, BIG), np.tri(3, k=1).T),
    "far array": (lambda: masks.causal(np.array([BIG])), np.ones((3, 3))),
    "far prefix": (lambda: masks.prefix(BIG), np.ones((3, 3))),
    "prefix": (lambda: masks.prefix(np.array([2])), [[1, 1, 0]] * 3),
    "hashes": (lambda: masks.segments(np.array([[7, 7 + 2**32, 7]])), CROSS),
    "mixed": (
        lambda: masks.segments(np.array([[1, 2, 2**63]], np.uint64), np.array([[-1, 2, 1]])),
        EDGES,
    ),
    "bools": (lambda: masks.segments(np.array([[True, False, True]])), CROSS),
    "function": (lambda: masks.from_function(lambda b, h, i, j: (i + j) % 2 == 0), CROSS),
}


@pytest.mark.parametrize("name", EXACT)
def test_integers_are_exact(name):
    make, wanted = EXACT[name]
    mask = make()
    np.testing.assert_array_equal(mask.dense(3, 3)[0, 0], wanted)
    summary = np.asarray(mask.fit(-1, -1, 3, 3).tiles(3, 3, 1, 1))
    assert ((summary == masks.PARTIAL) | (summary == 2 * np.asarray(wanted))).all()


def test_traced_wide_integers_keep_their_segments(x64):
    ids = jnp.array([[7, 7 + 2**32, 7]])
    dense = jax.jit(lambda ids: masks.segments(ids).dense(3, 3))(ids)
    np.testing.assert_array_equal(dense[0, 0], [[1, 0, 1], [0, 1, 0], [1, 0, 1]])


@pytest.mark.parametrize("thing", [masks.causal(), scores.alibi(2), scores.chain()])
def test_and_or_not_are_refused(thing):
    for join in (lambda: thing and 1, lambda: thing or 1, lambda: not thing):
        with pytest.raises(ValueError, match="has no truth value, so `and`, `or` and `not`"):
            join()
    for other in (jattn.attention.normalizers.softmax, jattn.attention.Blocks()):
        with pytest.raises(ValueError, match="no truth value"):
            bool(other)


def test_functions_of_four_indices_are_masks_everywhere():
    documents = jnp.array([[0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 1]])
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 6, 2, 4)), jnp.float32)

    @jax.jit
    def run(documents):
        mask = lambda b, h, i, j: (documents[b][i] == documents[b, j]) & (i >= j) & (h * j < 4)
        plain = lambda b, h, i, j: (i >= j) & (i - j < 2 + h)
        return (
            jattn.attend(x, x, x, mask=mask, implementation="reference"),
            jattn.attend(x, x, x, mask=mask, implementation="blockwise"),
            jattn.attend(x, x, x, mask=plain, implementation="pallas"),
        )

    i, j = np.arange(6)[:, None], np.arange(6)
    same = np.asarray(documents)[:, :, None] == np.asarray(documents)[:, None]
    heads = np.arange(2)[:, None, None]
    looked_up = same[:, None] & (i >= j) & (heads * j < 4)
    shape = np.broadcast_to((i >= j) & (i - j < 2 + heads), (2, 2, 6, 6))
    found = run(documents)
    for out, allowed in zip(found, (looked_up, looked_up, shape), strict=True):
        want = jattn.attend(x, x, x, mask=jnp.asarray(allowed))
        np.testing.assert_allclose(out, want, atol=1e-6)
    mask = lambda b, h, i, j: documents[b, i] == documents[b, j]
    with pytest.raises(NotImplementedError, match="its mask is a function that looks something up"):
        jattn.attend(x, x, x, mask=mask, implementation="pallas")
