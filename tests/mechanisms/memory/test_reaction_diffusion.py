"""Reaction and diffusion: the stencils' laws, the layer's limits, and stopping early."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo
from jattn.mechanisms.memory.grids import (
    interpolation_weights,
    laplacian1d,
    laplacian2d,
    pool_weights,
    shifted,
)
from jattn.mechanisms.memory.reaction_diffusion_layer import (
    DILATIONS,
    reaction_diffusion_init,
    settle,
)
from jattn.mechanisms.memory.reaction_diffusion_layer import reaction_diffusion as core

B, N, C = 2, 16, 3
START = float(np.log1p(np.exp(0.1)))  # a coefficient D at the start
STATIC = ("dilations", "norm_every", "regions")
reaction_diffusion = jax.jit(core, static_argnums=2, static_argnames=STATIC)
lap2d = jax.jit(laplacian2d, static_argnums=2)


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


def ones(n):
    return jnp.ones((n, C))


@pytest.fixture(scope="module")
def params():
    with jax.enable_x64(False):
        return jax.jit(lambda: reaction_diffusion_init(jax.random.key(0), C))()


def test_stencils_by_their_definition():
    u, weights = draw(0, B, 5, 7, C), jnp.abs(draw(1, 3, C))
    expected = np.zeros(u.shape)
    for d, weight in zip((1, 2, 6), np.asarray(weights), strict=True):
        wide = np.pad(u, ((0, 0), (d, d), (d, d), (0, 0)), mode="edge")
        rows, columns = slice(d, d + 5), slice(d, d + 7)
        around = [wide[:, : 5, columns], wide[:, 2 * d :, columns]]  # fmt: skip
        around += [wide[:, rows, :7], wide[:, rows, 2 * d :]]
        expected += weight * (np.sum(around, 0) - 4 * np.asarray(u))
    close(lap2d(u, weights, (1, 2, 6)), expected)
    line = u[:, 0]
    for causal in (False, True):
        found = laplacian1d(line, weights, (1, 2, 6), causal=causal)
        total = np.zeros(line.shape)
        for d, weight in zip((1, 2, 6), np.asarray(weights), strict=True):
            wide = np.pad(line, ((0, 0), (2 * d, 0) if causal else (d, d), (0, 0)), mode="edge")
            total += weight * (wide[:, :7] - 2 * wide[:, d : d + 7] + wide[:, 2 * d :])
        close(found, total)


def test_laws_of_diffusion():
    u, other = draw(0, B, N, N, C), draw(1, B, N, N, C)
    close(lap2d(jnp.full_like(u, 2.5), ones(3), DILATIONS), 0)  # a constant stays
    close(lap2d(u - 3 * other, ones(3), DILATIONS),
          lap2d(u, ones(3), DILATIONS) - 3 * lap2d(other, ones(3), DILATIONS), 1e-4)  # fmt: skip
    assert np.abs(lap2d(u, ones(1), (1,)).sum((1, 2))).max() < 1e-3  # nothing is lost, near by
    assert np.abs(lap2d(u, ones(1), (4,)).sum((1, 2))).max() > 1  # but over the edges, far off
    # As far as the image is wide, everything meets the edges.
    edges = u[:, :1] + u[:, -1:] + u[:, :, :1] + u[:, :, -1:] - 4 * u
    close(lap2d(u, ones(1), (16,)), edges)
    # Away from the borders it is the same everywhere.
    moved = jnp.roll(u, (1, 2), (1, 2))
    a, b = lap2d(u, ones(1), (4,)), lap2d(moved, ones(1), (4,))
    close(b[:, 5:-4, 6:-4], jnp.roll(a, (1, 2), (1, 2))[:, 5:-4, 6:-4])


def test_diffusion_averages_up_to_the_step_where_it_blows_up():
    """Steps of diffusion alone, with the coefficients at the start."""

    @jax.jit
    def run(u, dt):
        step = lambda u: u + dt * laplacian2d(u, START * ones(3), DILATIONS)
        return jax.lax.scan(lambda u, _: (step(u), u.var((1, 2)).max()), u, length=20)

    u = draw(0, B, N, N, C)
    assert round(4 * 0.1 * 3 * START, 3) == 0.893
    out, variance = run(u, 0.1)
    assert (out.max((1, 2)) <= u.max((1, 2))).all()
    assert (out.min((1, 2)) >= u.min((1, 2))).all()
    assert (np.diff(variance) < 0).all()
    assert 1e-7 < out.var((1, 2)).max() / u.var((1, 2)).max() < 1e-4
    assert np.abs(run(u, 0.25)[0]).max() > 1e5


def test_pooling_and_interpolation():
    """Of an image of 8 x 8: means of 4 x 4 parts; then what jax's own resizing gives."""
    u = draw(0, B, 8, C)
    place, length = jnp.arange(8)[None], jnp.full((1, 1), 8)
    close(pool_weights(place, length, 4) @ u, u.reshape(B, 4, 2, C).mean(2))
    for cells in (1, 3, 4):
        small = draw(1, B, cells, C)
        found = interpolation_weights(place, length, cells) @ small
        close(found, jax.image.resize(small, (B, 8, C), "linear"))
    for n, cells in ((7, 4), (3, 4)):  # parts overlap, or repeat
        weights = pool_weights(jnp.arange(n)[None], jnp.full((1, 1), n), cells)[0]
        expected = np.zeros((cells, n))
        for i in range(cells):
            start, stop = i * n // cells, -(-(i + 1) * n // cells)
            expected[i, start:stop] = 1 / (stop - start)
        close(weights, expected)
    close(shifted(u, 20, 1), jnp.broadcast_to(u[:, :1], u.shape))
    close(shifted(u, -20, 1), jnp.broadcast_to(u[:, -1:], u.shape))


def test_steps_of_the_layer_by_their_definition(params):
    u = draw(0, B, 8, 8, C)
    assert (reaction_diffusion(u, params, 0) == u).all()

    def affine(part, x):
        return x @ part["weight"] + part["bias"]

    @jax.jit
    def two_steps(u):
        h = jnp.zeros((B, 1, 1, C))
        for index in range(2):
            mean = u.mean((1, 2), keepdims=True)
            memory = params["memory"]
            h = h + jax.nn.sigmoid(affine(memory["gate"], mean)) * jnp.tanh(
                affine(memory["value"], mean)
            )
            parts = u.reshape(B, 4, 2, 4, 2, C).mean((2, 4))
            local = jax.image.resize(affine(params["local"], parts), u.shape, "linear")
            hidden = affine(params["reaction"]["inner"], u)
            hidden = hidden * (1 + jax.lax.erf(hidden / 2**0.5)) / 2
            change = laplacian2d(u, START * ones(3), DILATIONS)
            change += affine(params["reaction"]["outer"], hidden)
            u = u + 0.1 * (change + START * h + jax.nn.softplus(0.05) * local)
            if index == 1:
                u = u / jnp.sqrt((u**2).mean(-1, keepdims=True) + 1e-8)
        return u

    close(reaction_diffusion(u, params, 2), two_steps(u))


def test_the_time_step_keeps_within_its_bounds(params):
    u = draw(0, B, 8, 8, C)
    for log_dt, bound in ((3.0, 0.35), (-20.0, 0.005)):
        found, same = (
            reaction_diffusion(u, params | {"log_dt": jnp.float32(x)}, 1)
            for x in (log_dt, np.log(bound))
        )
        close(found, same)


def test_settling_stops_when_little_changes(params):
    u = draw(0, B, 8, 8, C)
    run = jax.jit(settle, static_argnums=2, static_argnames=("patience", "min_steps"))
    never = run(u, params, 6, epsilon=0.0)
    close(never.u, reaction_diffusion(u, params, 6))
    assert never.steps == 6
    history = np.asarray(never.history)
    assert np.isfinite(history).all()
    # With any change little it takes the fewest steps; else until two running are.
    for patience, least, taken in ((2, 3, 3), (4, 3, 4), (1, 1, 1)):
        found = run(u, params, 6, epsilon=99.0, patience=patience, min_steps=least)
        assert found.steps == taken
        close(found.u, reaction_diffusion(u, params, taken))
        close(found.history[:taken], history[:taken])
        assert np.isnan(found.history[taken:]).all()
    pairs = np.maximum(history[:-1], history[1:])
    for pair in pairs[1:]:
        found = run(u, params, 6, epsilon=1.001 * float(pair))
        assert found.steps == 3 + np.argmax(pairs[1:] <= pair)


def test_padding_within_a_sequence_is_as_the_cell_before():
    mixer = zoo.make("reaction_diffusion", dim=4, heads=1, steps=2)
    params = jax.jit(mixer.init)(jax.random.key(0))
    apply = jax.jit(lambda x, mask: mixer.apply(params, x, mask=mask))
    x = draw(0, 1, 7, 4)
    early = jnp.arange(7)[None] >= 3
    whole = apply(x[:, 3:], jnp.ones((1, 4), bool))
    close(apply(x, early)[:, 3:], whole)
    assert np.isfinite(apply(x, jnp.zeros((1, 7), bool))).all()


def test_grids_see_up_and_down():
    mixer = zoo.make("reaction_diffusion", dim=4, heads=1, steps=3, grid=(3, 4))
    params = jax.jit(mixer.init)(jax.random.key(0))
    x = draw(0, B, 12, 4)
    found = jax.jit(mixer.apply)(params, x)
    image = reaction_diffusion(x.reshape(B, 3, 4, 4), params, 3)
    close(found, image.reshape(x.shape))


def test_errors(plain_checks, params):
    u = draw(0, B, 8, 8, C)
    cases = {
        "u: expected 4 axes": lambda: core(u[0], params, 2),
        r"coefficients: expected shape \[n=1, c=3\]": lambda: laplacian2d(u, ones(2), (1,)),
        "dilations: expected at least 1 each": lambda: laplacian2d(u, ones(1), (0,)),
        "max_steps: expected at least 1, got 0": lambda: settle(u, params, 0),
    }
    bad: Any = {"steps": dict(steps=0), "dilations": dict(dilations=())}
    bad["grid"] = dict(grid=(2, 3), causal=True)
    for name, wrong in bad.items():
        make = lambda wrong=wrong: zoo.make("reaction_diffusion", dim=8, heads=1, **wrong)
        cases[f"{name}: expected"] = make
    mixer = zoo.make("reaction_diffusion", dim=3, heads=1, grid=(2, 3))
    x, mask = u[:, 0, :6], jnp.ones((B, 6), bool)
    cases["x: expected 2 x 3 tokens .* got 5 tokens"] = lambda: mixer.apply(params, x[:, :5])
    cases["got 6 tokens with one"] = lambda: mixer.apply(params, x, mask=mask)
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()
