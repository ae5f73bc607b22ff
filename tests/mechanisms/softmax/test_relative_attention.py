"""Relative attention: skewing against the definition, and what tables of known form give."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jattn
from jattn.attention import scores
from jattn.mechanisms import zoo
from jattn.mechanisms.softmax import relative_attention as relative

B, H, D = 2, 2, 3
CAUSAL = jattn.masks.causal()


def normal(seed: int, *shape: int):
    return jax.random.normal(jax.random.key(seed), shape)


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


def by_one_hot(query, table, s):
    """q_i . r of every pair, through a vector for every pair; 0 for keys after the query."""
    t, n = query.shape[1], table.shape[1]
    distance = np.arange(s - t, s)[:, None] - np.arange(s)
    pick = jax.nn.one_hot(np.maximum(n - 1 - distance, 0), n) * (distance >= 0)[..., None]
    table = jnp.broadcast_to(table, (H, n, D))
    return jnp.einsum("bthd,hnd,tsn->bhts", query, table, pick)


@pytest.mark.parametrize(
    ("t", "s", "n", "shared"),
    [(5, 5, 9, True), (7, 7, 7, False), (6, 6, 4, False), (3, 8, 5, True)],
)
def test_skewing_against_the_definition(t, s, n, shared):
    query, table = normal(0, B, t, H, D), normal(1, 1 if shared else H, n, D)
    distance = jnp.arange(s - t, s)[:, None] - jnp.arange(s)
    lower = distance >= 0
    cotangent = jnp.where(lower, normal(2, B, H, t, s), 0)
    forms = {
        "one-hot": lambda q, r: by_one_hot(q, r, s),
        "skew": lambda q, r: relative.relative_logits(q, r, keys=s),
        "gather": lambda q, r: jnp.where(
            lower, relative.relative_logits(q, r, relative_positions=distance[None]), 0
        ),
    }
    both = lambda f: jax.jit(lambda *args: (f(*args), jax.vjp(f, *args)[1](cotangent)))
    found = {name: both(f)(query, table) for name, f in forms.items()}
    for name in ("skew", "gather"):
        jax.tree.map(lambda a, b: near(a, b, 1e-5), found[name], found["one-hot"])


def by_distance(query, table, distance, future):
    """q_i . r of every pair by a loop, in NumPy; distances `[t, s]`."""
    query, table = np.asarray(query, np.float64), np.asarray(table, np.float64)
    logits = np.zeros((B, H, *distance.shape))
    for b, h, i, j in np.ndindex(logits.shape):
        row = len(table[0]) - 1 - future - distance[i, j]
        logits[b, h, i, j] = query[b, i, h] @ table[h, min(max(row, 0), len(table[0]) - 1)]
    return logits


@pytest.mark.parametrize(("t", "s", "n", "future"), [(6, 6, 4, 1), (3, 7, 30, 15), (5, 5, 3, 0)])
def test_both_directions_against_a_loop(t, s, n, future):
    query, table = normal(0, B, t, H, D), normal(1, H, n, D)
    distance = np.arange(s - t, s)[:, None] - np.arange(s)
    expected = by_distance(query, table, distance, future)
    near(relative.relative_logits(query, table, keys=s, future=future), expected, 1e-5)
    apart = jnp.asarray(distance)[None]
    near(
        relative.relative_logits(query, table, relative_positions=apart, future=future),
        expected,
        1e-5,
    )


@pytest.mark.parametrize("max_distance", [1, 3])
def test_the_bidirectional_mixer_by_hand(max_distance):
    t = 6
    mixer = relative.make(dim=H * D, heads=H, causal=False, max_distance=max_distance)
    params = mixer.init(jax.random.key(0))
    assert params["relative"].shape == (H, 2 * max_distance - 1, D)
    x = normal(1, B, t, H * D)
    heads = lambda name: (np.asarray(x) @ np.asarray(params[name])).reshape(B, t, H, D)
    distance = np.arange(t)[:, None] - np.arange(t)
    logits = by_distance(heads("query"), params["relative"], distance, max_distance - 1)
    logits += np.einsum("bthd,bshd->bhts", heads("query"), heads("key"))
    weights = np.exp(logits / D**0.5)
    weights /= weights.sum(-1, keepdims=True)
    out = np.einsum("bhts,bshd->bthd", weights, heads("value")).reshape(B, t, H * D)
    apply = jax.jit(mixer.apply)
    near(apply(params, x), out @ np.asarray(params["output"]), 1e-5)
    # From right to left it is the same with the table upside down.
    turned = params | {"relative": params["relative"][:, ::-1]}
    near(apply(turned, x[:, ::-1])[:, ::-1], apply(params, x), 1e-5)


def test_tables_of_known_form():
    t = 6
    q, k, v = normal(0, 3, B, t, H, D)
    plain = jattn.attend(q, k, v, mask=CAUSAL)
    attention = jax.jit(lambda table: relative.relative_attention(q, k, v, table, mask=CAUSAL))
    near(attention(jnp.zeros((H, t, D))), plain)
    near(attention(jnp.broadcast_to(normal(1, H, 1, D), (H, t, D))), plain)
    # q . u = 1: linear biases.
    one = q.at[..., 0].set(1.0)
    slopes = scores.alibi_slopes(H)
    far = np.arange(t)[::-1] * D**0.5
    table = jnp.zeros((H, t, D)).at[..., 0].set(-slopes[:, None] * far)
    near(
        relative.relative_attention(one, k, v, table, mask=CAUSAL),
        jattn.attend(one, k, v, mask=CAUSAL, score_mod=scores.alibi(H)),
    )


def test_padding_in_front_changes_nothing():
    query, table = normal(0, B, 6, H, D), normal(1, H, 9, D)
    shifted = relative.relative_logits(jnp.pad(query, ((0, 0), (3, 0), (0, 0), (0, 0))), table)
    near(shifted[:, :, 3:, 3:], relative.relative_logits(query, table))


def test_memory_has_no_vector_of_each_pair():
    t, d = 1024, 64
    shape = jax.ShapeDtypeStruct((1, t, 1, d), jnp.float32)
    table = jax.ShapeDtypeStruct((1, t, d), jnp.float32)
    logits = jax.jit(lambda q, r: relative.relative_logits(q, r).sum())
    analysis = jax.jit(jax.grad(logits, (0, 1))).lower(shape, table).compile().memory_analysis()
    assert analysis is not None
    assert t * t < analysis.temp_size_in_bytes < t * t * d  # t t d floats are four times as many


def test_local_attention_is_a_mask():
    t, block = 11, 4
    q, k, v = normal(0, 3, B, t, H, D)
    table = normal(1, H, 2 * block, D)
    number = np.arange(t) // block
    near_by = jnp.asarray(number[:, None] - number <= 1)[None, None]
    masked = jax.jit(lambda *args: relative.relative_attention(*args, mask=CAUSAL & near_by))
    local = jax.jit(lambda *args: relative.local_relative_attention(*args, block=block))
    near(local(q, k, v, table), masked(q, k, v, table))


def test_the_local_mixer_by_hand():
    """In NumPy; padding and documents count their own blocks, and steps are the whole."""
    t, block, n = 7, 2, 3
    mixer = relative.make(dim=H * D, heads=H, max_distance=n, block=block)
    params = mixer.init(jax.random.key(0))
    x = normal(1, B, t, H * D)
    arrays = {name: np.asarray(array, np.float64) for name, array in params.items()}

    def by_hand(x):
        length = x.shape[1]
        query, key, value = (
            (np.asarray(x) @ arrays[name]).reshape(B, length, H, D)
            for name in ("query", "key", "value")
        )
        distance = np.arange(length)[:, None] - np.arange(length)
        number = np.arange(length) // block
        seen = (distance >= 0) & (number[:, None] - number <= 1)
        logits = by_distance(query, arrays["relative"], distance, 0)
        weights = np.exp((logits + np.einsum("bthd,bshd->bhts", query, key)) / D**0.5) * seen
        weights /= weights.sum(-1, keepdims=True)
        out = np.einsum("bhts,bshd->bthd", weights, value).reshape(B, length, H * D)
        return out @ arrays["output"]

    apply = jax.jit(mixer.apply)
    whole = by_hand(x)
    near(apply(params, x), whole, 1e-5)
    positions = jnp.broadcast_to(jnp.arange(t), (B, t))
    near(apply(params, x, positions=positions), whole, 1e-5)
    near(apply(params, x, mask=jattn.masks.prefix(5))[:, :5], whole[:, :5], 1e-5)
    real = jnp.broadcast_to(jnp.arange(t) >= 3, (B, t))
    near(apply(params, x, mask=real)[:, 3:], by_hand(x[:, 3:]), 1e-5)
    documents = jattn.masks.segments(jnp.broadcast_to(jnp.arange(t) >= 3, (B, t)).astype(int))
    packed = apply(params, x, mask=documents)
    near(packed[:, :3], whole[:, :3], 1e-5)
    near(packed[:, 3:], by_hand(x[:, 3:]), 1e-5)

    assert mixer.init_state is not None
    assert mixer.step is not None
    state, step = mixer.init_state(params, B, t), jax.jit(mixer.step)
    for i in range(t):
        y, state = step(params, x[:, i], state)
        near(y, whole[:, i], 1e-5)


def test_relations_of_attributes():
    t = 5
    q, k, v = normal(0, 3, B, t, H, D)
    table, pitches = normal(1, H, t, D), jax.random.randint(jax.random.key(2), (B, t), 0, 9)
    pitch_table = normal(3, 1, 2 * 3 + 1, D)
    difference = pitches[:, :, None] - pitches[:, None]
    found = relative.relative_attention(
        q, k, v, table, relations=[(pitch_table, difference)], mask=CAUSAL
    )
    vectors = pitch_table[0][jnp.clip(difference, -3, 3) + 3]
    more = jnp.einsum("bthd,btsd->bhts", q, vectors)
    bias = (by_one_hot(q, table, t) + more) / D**0.5
    near(found, jattn.attend(q, k, v, bias=bias, mask=CAUSAL))


def test_positions_and_the_end_of_the_table():
    mixer = zoo.make("relative_attention", dim=6, heads=H, causal=True, max_distance=3)
    params = mixer.init(jax.random.key(0))
    x = normal(1, B, 6, 6)
    whole = mixer.apply(params, x)
    positions = jnp.broadcast_to(jnp.arange(6), (B, 6))
    near(mixer.apply(params, x, positions=positions + 7), whole)
    assert np.abs(mixer.apply(params, x, positions=2 * positions) - whole).max() > 1e-3
    # Two tokens apart and further is all the same.
    near(
        mixer.apply(params, x, positions=jnp.where(positions < 3, positions - 9, positions))[:, 5],
        whole[:, 5],
    )
    shared = relative.make(dim=6, heads=H, max_distance=3, shared_heads=True, window=4, kv_heads=1)
    params = shared.init(jax.random.key(0))
    assert params["relative"].shape == (1, 3, D)
    assert shared.init_state is not None
    assert shared.step is not None
    state, step = shared.init_state(params, B, 8), jax.jit(shared.step)
    for t in range(6):
        y, state = step(params, x[:, t], state)
        near(y, shared.apply(params, x)[:, t])


def test_bad_input_is_named(plain_checks):
    q = normal(0, B, 5, H, D)
    for message, call in {
        "table: expected 1 or 2 heads, got 3": lambda: relative.relative_logits(
            q, normal(1, 3, 5, D)
        ),
        "table: expected shape [one_or_h=2, n=5, d=3], got [2, 5, 4]": lambda: (
            relative.relative_logits(q, normal(1, H, 5, 4))
        ),
        "keys: expected at least the 5 queries, got 4": lambda: relative.relative_logits(
            q, normal(1, H, 5, D), keys=4
        ),
        "block: expected at least 1, got 0": lambda: relative.local_relative_attention(
            q, q, q, normal(1, H, 5, D), block=0
        ),
        "block: the local form is causal; pass causal=True": lambda: relative.make(
            dim=6, heads=2, causal=False, block=2
        ),
        "max_distance: expected at least 1, got 0": lambda: relative.make(
            dim=6, heads=2, max_distance=0
        ),
        "future: expected less than the table's 5 rows, got 5": lambda: relative.relative_logits(
            q, normal(1, H, 5, D), future=5
        ),
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
