"""Two streams: cross gating, supervised attention, themes and emotion banks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms.cross import cross_gating as gating
from jattn.mechanisms.cross import emotion_bank as bank
from jattn.mechanisms.cross import supervised_attention as sam
from jattn.mechanisms.cross import theme_attention as theme
from jattn.mechanisms.layers.affine import affine_init, mlp_init, norm_init
from jattn.mechanisms.layers.convolutions import convolution
from jattn.mechanisms.layers.vector_quantize import vector_quantize

RNG = np.random.default_rng(0)
draw = lambda *shape: jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def close(got, expected, tolerance=1e-5):
    np.testing.assert_allclose(got, expected, atol=tolerance)


def test_cross_gating_without_its_last_maps_adds_the_streams():
    params = gating.cross_gating_init(jax.random.key(0), (4, 3), 4, grid=4, block=4)
    x, y = draw(1, 4, 4, 4), draw(1, 4, 4, 3)
    for stream in params.values():
        stream["outer"] = jax.tree.map(jnp.zeros_like, stream["outer"])
    after = gating.cross_gating(params, x, y, block=(2, 2), grid=(2, 2))
    enter = lambda of, z: z @ params[of]["enter"]["weight"]
    close(after[0], enter("x", x) + enter("y", y))
    close(after[1], enter("y", y))


def test_cross_gating_takes_streams_of_one_size(plain_checks):
    params = gating.cross_gating_init(jax.random.key(0), (4, 4), 4, grid=4, block=4)
    with pytest.raises(ValueError, match=r"y: expected shape \[b=1, h=4, w=4, n=4\], got "):
        gating.cross_gating(params, draw(1, 4, 4, 4), draw(1, 4, 2, 4), block=(2, 2), grid=(2, 2))


def test_supervised_attention_is_a_residual_of_an_image():
    params = sam.supervised_attention_init(jax.random.key(0), 4)
    x, image = draw(1, 5, 5, 4), draw(1, 5, 5, 3)
    y, restored = sam.supervised_attention(params, x, image)
    close(restored - image, sam.supervised_attention(params, x)[1])
    still = params | {"features": jax.tree.map(jnp.zeros_like, params["features"])}
    close(sam.supervised_attention(still, x, image)[0], x)
    half = params | {"gate": jax.tree.map(jnp.zeros_like, params["gate"])}
    close(
        sam.supervised_attention(half, x)[0] - x, convolution(x, params["features"]["weight"]) / 2
    )
    assert y.shape == x.shape


def layer(key):
    keys = iter(jax.random.split(key, 9))
    names = ("query", "key", "value", "output")
    maps = lambda: {of: affine_init(next(keys), 8, 8) for of in names}
    return {
        **{"self": maps(), "cross": maps(), "norm": norm_init(8), "mlp_norm": norm_init(8)},
        "mlp": mlp_init(next(keys), 8, 8),
    }


PARAMS, X, THEME = layer(jax.random.key(1)), draw(2, 6, 8), draw(2, 3, 8)
LABELS = jnp.array([[0, 1, 2, 3, 0, 0], [0, 0, 0, 0, 1, 2]])


@jax.jit
def layers(x, memory, labels):
    run = lambda exclusive: theme.theme_layer(
        PARAMS, x, memory, labels, heads=2, exclusive=exclusive
    )
    return run(False), run(True)


def test_themes_are_causal_and_read_where_labels_say():
    parallel, exclusive = layers(X, THEME, LABELS)
    later = layers(X.at[:, 4:].add(1.0), THEME, LABELS)
    close(later[0][:, :4], parallel[:, :4])
    other = layers(X, THEME + 1.0, LABELS)
    for one, two in zip((parallel, exclusive), other, strict=True):
        moved = np.abs(one - two).max(-1) > 1e-5
        assert (moved == (LABELS > 0)).all()


def test_gates_of_themes():
    own, read = draw(1, 4, 2), draw(1, 4, 2)
    some = jnp.array([[True, False, True, False]])
    both = theme.gated_parallel(own, read, some)
    close(both[:, ::2], ((own + read) / 2)[:, ::2])
    alone = theme.gated_parallel(own, read, some, exclusive=True)
    close(alone[:, ::2], read[:, ::2] / 2)
    close(alone[:, 1::2], own[:, 1::2] / 2)
    close(theme.gated_parallel(own, read, jnp.zeros((1, 4), bool)), own / 2)


def test_words_are_those_of_the_bank_and_gradients_pass():
    z, words = draw(5, 3), draw(4, 3)
    found = vector_quantize(z, words)
    close(found.vectors, words[found.indices])
    distance = ((z[:, None] - words) ** 2).sum(-1)
    assert (found.indices == distance.argmin(-1)).all()
    weight = draw(5, 3)
    through = jax.grad(lambda z: (weight * vector_quantize(z, words).vectors).sum())(z)
    close(through, weight)
    of_words = jax.grad(lambda w: vector_quantize(z, w, commitment=0.0).loss)(words)
    again = jax.grad(lambda w: vector_quantize(z, w, commitment=9.0).loss)(words)
    close(of_words, again)  # the commitment pulls vectors alone
    assert vector_quantize(words, words).loss == 0
    order = jnp.array([2, 0, 3, 1])
    close(vector_quantize(z, words[order]).vectors, found.vectors)


def test_a_bank_has_no_order():
    names = ("query", "key", "value")
    keys = jax.random.split(jax.random.key(3), 3)
    params = {of: affine_init(key, 4, 4) for of, key in zip(names, keys, strict=True)}
    x, words = draw(2, 3, 5, 4), draw(2, 3, 6, 4)
    y, weights = bank.bank_attention(params, x, words, heads=2)
    close(bank.bank_attention(params, x, words[..., ::-1, :], heads=2)[0], y)
    assert weights.shape == (2, 3, 2, 5, 6)
    close(weights.sum(-1), 1)
