"""Gates over channels: what each sees, how it begins, and what it is a limit of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo
from jattn.mechanisms.channel.context_encoding import assignments
from jattn.mechanisms.channel.frequency_channel_attention import cosine_basis
from jattn.mechanisms.channel.second_order_pooling import covariance

B, T, C = 2, 12, 8
X = np.random.default_rng(0).standard_normal((B, T, C)).astype(np.float32)
NAMES = (
    *("collaborative_attention", "context_encoding", "convolutional_block_attention"),
    *("efficient_channel_attention", "frequency_channel_attention", "gated_channel_transform"),
    *("gather_excite", "second_order_pooling", "squeeze_excitation", "style_recalibration"),
)


@functools.cache
def made(name, **options):
    gate = zoo.make(name, dim=C, **options)
    rng = np.random.default_rng(7)
    shaken = lambda p: np.asarray(p) + 0.3 * rng.standard_normal(p.shape).astype(np.float32)
    params = jax.tree.map(shaken, jax.jit(gate.init)(jax.random.key(0)))
    if "statistics" in params:
        params["statistics"]["variance"] = np.ones_like(params["statistics"]["variance"])
    return gate, jax.tree.map(jnp.asarray, params), jax.jit(gate.factors)


def first(name, **options):
    return jax.jit(zoo.make(name, dim=C, **options).init)(jax.random.key(1))


def close(got, expected, tolerance=1e-5):
    np.testing.assert_allclose(got, expected, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_tokens_counts_where_the_entry_says_so(name):
    """Of those without order the factors are the same; of others they are not."""
    _, params, factors = made(name)
    order = np.random.default_rng(1).permutation(T)
    one, other = factors(params, X), factors(params, X[:, order])
    if zoo.info(name).equivariant:
        close(other, one)
    else:
        assert np.abs(other - (one if one.shape[1] == 1 else one[:, order])).max() > 1e-4


@pytest.mark.parametrize("name", [n for n in NAMES if n != "gated_channel_transform"])
def test_factors_shrink(name):
    found = np.asarray(made(name)[2](made(name)[1], X))
    assert ((found > 0) & (found < 1)).all()


def test_how_they_begin():
    x = jnp.asarray(X)
    close(made("gct")[0].apply(first("gct"), x), X)
    close(made("collaborative_attention")[0].apply(first("collaborative_attention"), x), X / 2)
    for name in ("se", "fca", "ge"):
        params = made(name)[1] | {"up": 0 * made(name)[1]["up"]}
        close(made(name)[2](params, x), 0.5)


def test_lengths_are_relative():
    """All alphas times a number change nothing, up to eps."""
    _, params, factors = made("gct")
    params = params | {"alpha": 1 + np.abs(params["alpha"])}
    close(factors(params | {"alpha": 3 * params["alpha"]}, X), factors(params, X), 1e-4)


def test_gathering_without_parameters():
    gate = zoo.make("gather_excite", dim=C, form="minus")
    close(gate.apply({}, jnp.asarray(X)), X / (1 + np.exp(-X.mean(1, keepdims=True))))
    theta = zoo.make("gather_excite", dim=C, form="theta", extent=T)
    params = theta.init(jax.random.key(0)) | {"gather": jnp.full((T, C), 1 / T)}
    scale = {"norm": {"scale": jnp.full(C, np.sqrt(1 + 1e-5)), "shift": jnp.zeros(C)}}
    close(theta.apply(params | scale, jnp.asarray(X)), gate.apply({}, jnp.asarray(X)))


def test_frequency_zero_is_squeeze_and_excitation():
    gate, params, _ = made("fca", frequencies=(0,))
    se = zoo.make("se", dim=C, reduction=4)
    scaled = params | {"down": params["down"] * np.sqrt(T)}
    close(gate.apply(params, jnp.asarray(X)), se.apply(scaled, jnp.asarray(X)))
    basis = np.concatenate(
        [cosine_basis(jnp.full(1, float(f)), jnp.full((1, 1), float(T)), T)[0] for f in range(T)], 1
    )
    close(basis.T @ basis, np.eye(T))


def test_one_tap_sees_its_own_channel():
    _, _, factors = made("eca", width=1)
    mean = X.mean(1, keepdims=True)
    close(factors({"taps": jnp.array([0.7])}, X), 1 / (1 + np.exp(-0.7 * mean)))


@pytest.mark.parametrize("name", ["se", "gct", "srm", "ge", "cbam"])
def test_channels_are_equivalent(name):
    """Permuted with their parameters, they give outputs permuted alike; ECA's are a line."""
    _, params, factors = made(name)
    order = np.random.default_rng(2).permutation(C)

    def permuted(path, leaf):
        if path[-1].key in ("taps", "bias"):
            return leaf
        axis = {"down": 0, "up": 1, "style": 0, "gather": 1}.get(path[0].key, 0)
        return np.take(np.asarray(leaf), order, axis)

    close(
        factors(jax.tree_util.tree_map_with_path(permuted, params), X[..., order]),
        np.asarray(factors(params, X))[..., order],
    )


def test_dispersion_is_seen_by_those_that_say_so():
    """Series of mean 0 that differ in their deviation only."""
    quiet = X - X.mean(1, keepdims=True)
    loud = 3 * quiet
    for name, sees in {"se": False, "eca": False, "srm": True, "gsop": True}.items():
        _, params, factors = made(name)
        change = np.abs(np.asarray(factors(params, quiet)) - factors(params, loud)).max()
        assert (change > 1e-2) == sees, (name, change)


def test_covariances_and_assignments():
    found = np.asarray(covariance(jnp.asarray(X)), np.float64)
    close(found, [np.cov(x.T) for x in X])
    assert np.linalg.eigvalsh(found).min() > -1e-6
    _, params, _ = made("encnet")
    weights = assignments(jnp.asarray(X), params["codewords"], params["smoothing"])
    close(weights.sum(-1), 1)
    level = jnp.broadcast_to(params["codewords"][0], params["codewords"].shape)
    equal = assignments(jnp.asarray(X), level, jnp.full(len(level), -0.5))
    close(equal, 1 / len(level))


def test_training_normalises_over_the_batch_and_returns_averages():
    """As inference does with those numbers; the averages move by a tenth."""
    gate, params, _ = made("gsop")
    y, after = jax.jit(gate.train)(params, X)
    z = X @ params["reduce"]["weight"] + params["reduce"]["bias"]
    rows = np.stack([np.cov(row.T) for row in z]).astype(np.float32)
    mean, variance = rows.mean((0, 1)), rows.var((0, 1))
    exact = params | {"statistics": {"mean": jnp.asarray(mean), "variance": jnp.asarray(variance)}}
    close(y, gate.apply(exact, jnp.asarray(X)), 1e-4)
    close(after["mean"], 0.9 * params["statistics"]["mean"] + 0.1 * mean)
    n = rows.size // rows.shape[-1]
    before = params["statistics"]["variance"]
    close(after["variance"], 0.9 * before + 0.1 * variance * n / (n - 1))
    assert made("se")[0].train is None


def test_constant_features_have_finite_gradients():
    """Where deviations and ranges are zero, and with a single token."""
    for name in ("srm", "collaborative_attention", "gsop", "cbam"):
        gate, params, _ = made(name)
        pull = jax.jit(jax.grad(lambda p, x, gate=gate: gate.apply(p, x).sum(), (0, 1)))
        for x in (jnp.ones((1, 3, C)), jnp.ones((1, 1, C))):
            gradient = pull(params, x)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("eca", dict(width=2), "width: expected an odd number, got 2"),
        ("fca", dict(frequencies=()), r"frequencies: expected numbers, got \(\)"),
        ("fca", dict(frequencies=(-1,)), "frequencies: expected at least 0, got -1"),
        ("ge", dict(form="delta"), "form: expected one of 'minus', 'theta', 'plus', got 'delta'"),
        ("gsop", dict(activation="relu"), "activation: expected one of 'sigmoid', 'none', got "),
        ("cbam", dict(axes=3), "axes: expected one of 1, 2, got 3"),
    ],
)
def test_wrong_options_are_named(plain_checks, name, options, said):
    with pytest.raises(ValueError, match=said):
        zoo.make(name, dim=C, **options)


def test_more_places_than_weights_are_refused(plain_checks):
    gate, params, _ = made("ge", extent=4)
    with pytest.raises(ValueError, match="x: expected at most extent=4 places, got 12"):
        gate.apply(params, jnp.asarray(X))
