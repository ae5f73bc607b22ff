"""Gates from mixers of places, MAXIM and NiNformer; dual attention over places and channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo
from jattn.mechanisms.channel import multi_axis_gmlp as maxim
from jattn.mechanisms.channel import ninformer as nin
from jattn.mechanisms.channel.channel_self_attention import channel_self_attention
from jattn.mechanisms.layers.affine import affine, mlp_init, norm, norm_init
from jattn.mechanisms.layers.grid_mlp import assemble, cell_of, partition

RNG = np.random.default_rng(0)
draw = lambda *shape: jnp.asarray(RNG.standard_normal(shape), jnp.float32)
SIZES = dict(block=(2, 2), grid=(2, 2))
PARAMS = maxim.multi_axis_gmlp_init(jax.random.key(0), 4, grid=4, block=4)
# Gates that do something.
for _half in ("grid", "block"):
    PARAMS[_half]["mix"] = {"weight": draw(4, 4), "bias": draw(4)}
RUN = jax.jit(lambda params, x: maxim.multi_axis_gmlp(params, x, **SIZES))
X = draw(1, 4, 8, 4)


def close(got, expected, tolerance=2e-5):
    np.testing.assert_allclose(got, expected, atol=tolerance)


def alone(half):
    """What of one half is left if the other is not read."""
    keep = slice(0, 4) if half == "grid" else slice(4, 8)
    weight = jnp.zeros((8, 4)).at[keep].set(PARAMS["outer"]["weight"][keep])
    return PARAMS | {"outer": PARAMS["outer"] | {"weight": weight}}


def reach(params):
    """Which places change with that of row 1, column 1."""
    return np.abs(RUN(params, X.at[0, 1, 1, 0].add(1.0)) - RUN(params, X)).max((0, 3)) > 1e-6


def test_partitions_are_undone():
    for cell in ((2, 2), (1, 4), (4, 8)):
        assert (assemble(partition(X, cell), (4, 8), cell) == X).all()
    assert cell_of("grid", (2, 2), (4, 8)) == (2, 4)
    with pytest.raises(ValueError, match="x: expected sides that are multiples of"):
        partition(X, (3, 2))


def test_blocks_are_local_and_grids_reach_equal_offsets():
    near, far = np.zeros((4, 8), bool), np.zeros((4, 8), bool)
    near[:2, :2] = True
    far[1::2, 1::4] = True
    assert (reach(alone("block")) == near).all()
    assert (reach(alone("grid")) == far).all()


def test_blocks_may_be_exchanged():
    rolled = jnp.roll(X, 2, axis=2)  # whole blocks
    close(RUN(alone("block"), rolled), jnp.roll(RUN(alone("block"), X), 2, axis=2))


def test_without_mixing_gates_are_one():
    flat = dict(PARAMS)
    for half in ("grid", "block"):
        flat[half] = PARAMS[half] | {"mix": jax.tree.map(jnp.zeros_like, PARAMS[half]["mix"])}
    hidden = jax.nn.gelu(affine(flat["inner"], norm(flat["norm"], X)))
    parts = []
    for half, z in zip(("grid", "block"), jnp.split(hidden, 2, axis=-1), strict=True):
        p = flat[half]
        u = jnp.split(jax.nn.gelu(affine(p["inner"], norm(p["norm"], z))), 2, axis=-1)[0]
        parts.append(z + affine(p["outer"], u))
    close(RUN(flat, X), affine(flat["outer"], jnp.concatenate(parts, axis=-1)))


def test_parameters_fit_larger_images_and_lines():
    assert RUN(PARAMS, jnp.tile(X, (1, 2, 2, 1))).shape == (1, 8, 16, 4)
    x = draw(1, 8, 4)
    line = maxim.on_a_line(PARAMS, x, None, block=4, grid=4)
    image = maxim.multi_axis_gmlp(PARAMS, x[:, None], block=(1, 4), grid=(1, 4))
    close(line, image[:, 0])


def test_a_network_that_does_nothing_is_no_gate():
    params = nin.ninformer_init(jax.random.key(0), 4, length=6, hidden=5)
    x = draw(2, 6, 4)
    still = jax.tree.map(lambda p: p, params)
    for part in ("tokens", "channels"):
        still["mixer"][part]["outer"] = jax.tree.map(jnp.zeros_like, params["mixer"][part]["outer"])
    close(nin.ninformer(still, x), affine(params["value"], x) * x)
    one = params | {"value": {"weight": jnp.zeros((4, 4)), "bias": jnp.ones(4)}}
    close(nin.ninformer(one, x), nin.mlp_mixer(params["mixer"], x))
    none = params | {"value": jax.tree.map(jnp.zeros_like, params["value"])}
    block = {"unit": none, "norm": norm_init(4), "mlp": mlp_init(jax.random.key(1), 4, 5)}
    from jattn.mechanisms.layers.affine import mlp

    close(nin.ninformer_block(block, x), x + mlp(block["mlp"], norm(block["norm"], x, eps=1e-5)))


def test_token_weights_belong_to_places():
    """Permuted with them, tokens may be permuted; and there may be no more than weights."""
    params = nin.ninformer_init(jax.random.key(0), 4, length=6, hidden=5)["mixer"]
    x, order = draw(2, 6, 4), RNG.permutation(6)
    assert (
        np.abs(nin.mlp_mixer(params, x[:, order]) - nin.mlp_mixer(params, x)[:, order]).max() > 1e-3
    )
    tokens = params["tokens"]
    inner = tokens["inner"] | {"weight": tokens["inner"]["weight"][order]}
    outer = {"weight": tokens["outer"]["weight"][:, order], "bias": tokens["outer"]["bias"][order]}
    moved = params | {"tokens": {"inner": inner, "outer": outer}}
    close(nin.mlp_mixer(moved, x[:, order]), nin.mlp_mixer(params, x)[:, order])
    with pytest.raises(ValueError, match="x: expected at most max_length=6 tokens, got 7"):
        nin.mlp_mixer(params, draw(1, 7, 4))


def test_channels_attend_to_the_least_alike():
    """The row's maximum cancels; channels may be permuted; y is linear in gamma."""
    x = draw(2, 5, 4)
    energy = jnp.einsum("btc,btd->bcd", x, x)
    weights = jax.nn.softmax(energy.max(-1, keepdims=True) - energy)
    expected = jnp.einsum("bcd,btd->btc", weights, x)
    close(channel_self_attention(x, jnp.array(0.5)), 0.5 * expected)
    order = RNG.permutation(4)
    one = jnp.array(1.0)
    close(channel_self_attention(x[..., order], one), channel_self_attention(x, one)[..., order])


def test_places_attend_without_a_scale():
    mixer = zoo.make("position_attention", dim=16, heads=1, gamma=0.0)
    params = jax.jit(mixer.init)(jax.random.key(0))
    x = draw(2, 5, 16)
    apply = jax.jit(mixer.apply)
    assert not apply(params, x).any()
    one = params | {"gamma": jnp.array(1.0)}
    of = {name: affine(params[name], x) for name in ("query", "key", "value")}
    weights = jax.nn.softmax(jnp.einsum("btc,bsc->bts", of["query"], of["key"]))
    close(apply(one, x), weights @ of["value"])
    flat = one | {"query": jax.tree.map(jnp.zeros_like, params["query"])}
    close(apply(flat, x), jnp.broadcast_to(of["value"].mean(1, keepdims=True), x.shape))
    slope = jax.jvp(lambda g: mixer.apply(params | {"gamma": g}, x), (0.0,), (1.0,))[1]
    close(slope, apply(one, x))
