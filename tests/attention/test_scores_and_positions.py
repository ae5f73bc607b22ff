"""Score modifications and positions against their equations, written out."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn import attend, masks
from jattn.attention import positions, scores

T, H = 150, 3
INDEX = np.arange(T)


def modified(mod, score=None):
    """A modification applied to a whole plane `[1, h, t, t]`."""
    score = jnp.zeros((1, H, T, T)) if score is None else score
    index = jnp.arange(T)
    head = jnp.arange(H)[None, :, None, None]
    return mod(score, jnp.zeros((1, 1, 1, 1), int), head, index[:, None], index[None])


def t5_bucket(distance, buckets, bidirectional, max_distance):
    """Bucket of query - key = distance, one at a time."""
    start = 0
    if bidirectional:
        buckets //= 2
        start = buckets if distance < 0 else 0
        distance = abs(distance)
    distance = max(distance, 0)
    if distance < buckets // 2:
        return start + distance
    exact = buckets // 2
    log = math.log(distance / exact) / math.log(max_distance / exact)
    return start + min(exact + int(round(log * (buckets - exact), 9)), buckets - 1)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_t5_buckets(bidirectional):
    table = jax.random.normal(jax.random.key(0), (32, H))
    got = modified(scores.t5_buckets(table, bidirectional=bidirectional, max_distance=128))
    want = np.array([[t5_bucket(i - j, 32, bidirectional, 128) for j in INDEX] for i in INDEX])
    np.testing.assert_allclose(got[0], np.moveaxis(np.asarray(table)[want], -1, 0))


def test_alibi_and_relative_bias():
    distance = np.abs(INDEX[:, None] - INDEX)
    slopes = np.array([0.5, 0.25, 0.125])
    got = modified(scores.alibi(jnp.asarray(slopes, jnp.float32)))
    np.testing.assert_allclose(got[0], -slopes[:, None, None] * distance, rtol=1e-6)
    np.testing.assert_allclose(scores.alibi_slopes(6)[:4], [2**-2, 2**-4, 2**-6, 2**-8])
    np.testing.assert_allclose(scores.alibi_slopes(6)[4:], [2**-1, 2**-3])
    table = jax.random.normal(jax.random.key(0), (H, 7))
    got = modified(scores.relative_bias(table))
    column = np.clip(INDEX - INDEX[:, None], -3, 3) + 3
    np.testing.assert_allclose(got[0], np.asarray(table)[:, column])


@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
def test_decay_multiplies_the_weights_of_unnormalised_attention(implementation):
    x = jax.random.normal(jax.random.key(0), (1, T, H, 8))
    log_decay = -jax.nn.softplus(jax.random.normal(jax.random.key(1), (1, T, H)))

    def run(log_decay):
        mod = scores.decay(log_decay)
        out, lse = attend(
            x, x, x, score_mod=mod, mask=masks.causal(), return_lse=True,
            implementation=implementation,
        )  # fmt: skip
        return (out**2).sum(), (out, lse)

    (_, (out, lse)), grad = jax.jit(jax.value_and_grad(run, has_aux=True))(log_decay)
    # The sums as a recurrence: decay what is there, add the new key.
    score = np.einsum("tha,sha->hts", *[np.asarray(x[0], np.float64)] * 2) / math.sqrt(8)
    for head in range(H):
        decays = np.asarray(log_decay[0, :, head], np.float64)
        for i in (0, 1, 77, 149):
            weight = np.array(
                [math.exp(score[head, i, j] + decays[j + 1 : i + 1].sum()) for j in range(i + 1)]
            )
            np.testing.assert_allclose(lse[0, i, head], math.log(weight.sum()), atol=2e-5)
            want = weight @ np.asarray(x[0, : i + 1, head]) / weight.sum()
            np.testing.assert_allclose(out[0, i, head], want, atol=2e-5)
    # No key lies before the first step, so its gradient is a sum that cancels.
    assert np.abs(grad[0, 0]).max() <= 1e-5 * np.abs(grad).max()


@pytest.mark.parametrize("interleaved", [True, False])
def test_rotary_scores_depend_on_the_difference_of_positions(interleaved):
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 2, 16))

    def score(i, j):
        i, j = jnp.array([i]), jnp.array([j])
        return jnp.einsum(
            "bthd,bthd->bth",
            positions.rotary(q, i, interleaved=interleaved),
            positions.rotary(k, j, interleaved=interleaved),
        )

    np.testing.assert_allclose(score(9, 4), score(105, 100), atol=1e-4)
    np.testing.assert_allclose(score(7, 7), jnp.einsum("bthd,bthd->bth", q, k), atol=1e-5)


def test_rotary_pairs_are_rotated_by_their_angles():
    x = jax.random.normal(jax.random.key(0), (2, 5, 1, 8))
    where = jnp.array([[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]])
    angle = np.asarray(where)[..., None] * 100.0 ** (-np.arange(4) / 4)
    turn = np.exp(1j * angle)[:, :, None]
    pairs = np.asarray(x)
    want = (pairs[..., 0::2] + 1j * pairs[..., 1::2]) * turn
    got = positions.rotary(x, where, base=100.0, interleaved=True)
    np.testing.assert_allclose(got[..., 0::2], want.real, atol=1e-5)
    np.testing.assert_allclose(got[..., 1::2], want.imag, atol=1e-5)
    half = positions.rotary(x[..., jnp.array([0, 2, 4, 6, 1, 3, 5, 7])], where, base=100.0)
    np.testing.assert_allclose(half[..., :4], want.real, atol=1e-5)


def test_sinusoids_are_sines_then_cosines():
    found = positions.sinusoids(jnp.array([[0, 3]]), 4)
    angles = [3.0, 3.0 / 100]
    expected = [[0, 0, 1, 1], [*np.sin(angles), *np.cos(angles)]]
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="dim: expected an even number of channels, got 5"):
        positions.sinusoids(jnp.arange(2), 5)


def test_skew_moves_distances_to_keys():
    relative = np.random.default_rng(0).random((1, 2, 5, 9)).astype(np.float32)
    got = positions.skew(jnp.asarray(relative))
    for i, j in np.ndindex(5, 5):
        np.testing.assert_array_equal(got[..., i, j], relative[..., i, j - i + 4])


@pytest.mark.usefixtures("plain_checks")
@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: positions.rotary(jnp.ones((1, 2, 3, 5))), "x: expected an even number .* got 5"),
        (
            lambda: positions.rotary(jnp.ones((1, 2, 3, 4)), jnp.arange(3)),
            r"positions: expected shape \[t=2\], got \[3\]",
        ),
        (lambda: positions.skew(jnp.ones((1, 1, 3, 3))), "relative: expected 2 t - 1 = 5 .* got 3"),
        (lambda: scores.relative_bias(jnp.ones((2, 4))), "table: expected an odd number .* got 4"),
    ],
)
def test_bad_arguments_are_named(run, message):
    with pytest.raises(ValueError, match=message):
        run()
