"""Attention with one ingredient taken away: tokens compared, the exponential, the own sequence."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jattn
from jattn.mechanisms import zoo
from jattn.mechanisms.channel import gated_mlp
from jattn.mechanisms.linear import taylor_attention as taylor
from jattn.mechanisms.softmax import decoupled_attention as decoupled
from jattn.mechanisms.softmax import key_only_attention as key_only
from jattn.nn import Transformer, TransformerConfig
from jattn.nn.streams import apply_with_stream, without_layers
from jattn.recurrence.feature_maps import taylor_features

B, T, H, D, M = 2, 7, 2, 3, 12
Q, K, V = jax.random.normal(jax.random.key(0), (3, B, T, H, D))
X = jax.random.normal(jax.random.key(1), (B, T, M))
REAL = jnp.array([[True] * T, [False, True, True, False, True, True, False]])


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.mark.parametrize("spread", [1.0, 60.0])
def test_key_only_is_attention_without_queries(spread):
    """As a recurrence, and as attention of zeros with a bias of each key; gradients, too."""
    scores = spread * key_only.key_only_scores(Q, K)
    mask = jattn.masks.causal() & jattn.masks.from_array(REAL[:, None, None])

    def attention(scores, value):
        bias = jnp.swapaxes(scores, 1, 2)[:, :, None]
        return jattn.attend(jnp.zeros_like(Q), K, value, bias=bias, mask=mask)

    ours = lambda *a: key_only.key_only_attention(*a, causal=True, mask=REAL)
    cotangent = jax.random.normal(jax.random.key(3), V.shape)
    found, expected = (
        jax.jit(lambda *a, f=f: (f(*a), jax.vjp(f, *a)[1](cotangent)))(scores, V)
        for f in (ours, attention)
    )
    jax.tree.map(lambda a, b: near(a, b, 1e-5), found, expected)


def test_weights_of_key_only_attention():
    scores = key_only.key_only_scores(Q, K)
    near(scores, (jax.nn.silu(Q) * K).sum(-1) / D**0.5)
    units = jnp.broadcast_to(jnp.eye(T)[:, None], (B, T, H, T))
    attention = jax.jit(lambda *args: key_only.key_only_attention(*args, causal=True))
    weights = np.moveaxis(np.asarray(attention(scores, units)), 2, 1)
    near(weights.sum(-1), 1.0)
    for j in range(T):
        own = weights[..., j:, j]
        assert (np.diff(own, axis=-1) < 0).all()  # every new token takes from all before
        ratio = own / weights[..., j:, 0]  # of two keys, the same for all queries
        near(ratio, np.broadcast_to(ratio[..., :1], ratio.shape), 1e-4)
    mean = np.cumsum(V, 1) / np.arange(1, T + 1)[:, None, None]
    near(attention(jnp.ones_like(scores), V), mean)


def test_key_only_normed_streams():
    mixer = zoo.make("key_only_attention", dim=M, heads=H, causal=True, qk_norm=True)
    params = mixer.init(jax.random.key(0))
    assert mixer.init_state is not None
    assert mixer.step is not None
    state = mixer.init_state(params, B, T)
    assert sum(a.size for a in state) == B * H * (M // H + 2)
    step, whole = jax.jit(mixer.step), jax.jit(mixer.apply)(params, X)
    for t in range(T):
        y, state = step(params, X[:, t], state)
        near(y, whole[:, t], 1e-5)


@pytest.mark.parametrize("normalize", taylor.NORMALIZE)
def test_taylor_attention_by_its_definition(normalize):
    scores = jnp.einsum("bthd,bshd->bhts", Q, K) / D**0.5
    orders = [jnp.ones_like(scores), scores, scores**2 / 2]
    seen = jnp.tril(jnp.ones((T, T)))
    over = lambda w: w * seen / (w * seen).sum(-1, keepdims=True)
    weights = over(sum(orders)) if normalize == "common" else sum(map(over, orders))
    expected = jnp.einsum("bhts,bshe->bthe", weights, V)
    ours = lambda *args: taylor.taylor_attention(*args, causal=True, normalize=normalize)
    found = jax.jit(ours)(Q, K, V)
    scale = float(np.abs(expected).max())
    near(found / scale, expected / scale, 1e-5)


def test_taylor_weights_are_near_those_of_softmax():
    wide, narrow = 3 * Q, 0.05 * Q
    x = jnp.einsum("bthd,bshd->bhts", wide, K) / D**0.5
    features = [jnp.concatenate(taylor_features(y * D**-0.25, 2), -1) for y in (wide, K)]
    weights = jnp.einsum("bthn,bshn->bhts", *features)
    near(weights, 1 + x + x**2 / 2, 1e-3)
    assert weights.min() >= 0.499
    bound = np.abs(x) ** 3 * np.exp(np.abs(x)) / 6
    assert (np.abs(weights - np.exp(x)) <= bound + 1e-3).all()
    near(taylor.taylor_attention(narrow, K, V), jattn.attend(narrow, K, V), 1e-3)


def test_a_gated_mlp_sees_one_token():
    mixer = gated_mlp.make(dim=M, heads=H)
    params = mixer.init(jax.random.key(0))
    slopes = jax.jit(jax.jacobian(lambda x: mixer.apply(params, x[None])[0]))(X[0])
    others = np.where(np.eye(T, dtype=bool)[:, None, :, None], 0, slopes)
    assert not others.any()
    hidden = jax.nn.silu(X @ params["gate"]) * (X @ params["value"])
    near(mixer.apply(params, X), hidden @ params["output"])


def test_all_have_as_many_parameters():
    names = ("key_only_attention", "taylor_attention", "decoupled_attention", "gated_mlp")
    for name in names:
        shapes = jax.eval_shape(zoo.make(name, dim=M, heads=H, causal=True).init, jax.random.key(0))
        assert sum(p.size for p in jax.tree.leaves(shapes)) == 4 * M * M


def test_weights_of_another_stream():
    mixer = decoupled.make(dim=M, heads=H, causal=True, rotary=True)
    plain = zoo.make("softmax_attention", dim=M, heads=H, causal=True, rotary=True)
    params = mixer.init(jax.random.key(0))
    apply, plain_apply = jax.jit(mixer.apply), jax.jit(plain.apply)
    near(apply(params, X, context=X), plain_apply(params, X))
    fixed = X[:1]
    every = jnp.broadcast_to(fixed, X.shape)
    y = apply(params, X, context=fixed)
    near(y, apply(params, X, context=every))
    near(y[0], plain_apply(params, X)[0])
    # Linear in x: the weights do not see it.
    one = apply(params, jnp.ones_like(X), context=fixed)
    near(apply(params, 2 * X + 1, context=fixed), 2 * y + one, 1e-5)
    near(
        apply(params, X, context=fixed, mask=REAL),
        apply(params, X, context=every, mask=REAL),
    )
    later = jnp.broadcast_to(jnp.arange(T) + 3, (B, T))
    near(apply(params, X, context=fixed, positions=later), y, 1e-5)


@pytest.mark.parametrize("rotary", [False, True])
def test_steps_take_the_other_stream(rotary):
    mixer = decoupled.make(dim=M, heads=H, causal=True, rotary=rotary)
    params = mixer.init(jax.random.key(0))
    assert mixer.init_state is not None
    step: Any = mixer.step
    own = 2 - X[:, ::-1]
    for stream in (X[:1], own):
        state = mixer.init_state(params, B, T)
        out = []
        for t in range(T):
            y, state = step(params, X[:, t], state, context=stream[:, t])
            out.append(y)
        near(jnp.stack(out, 1), mixer.apply(params, X, context=stream), 1e-5)


def test_streams_through_a_model():
    config = TransformerConfig(
        vocab_size=11,
        dim=M,
        heads=H,
        layers=2,
        mechanisms=("softmax_attention", "decoupled_attention"),
        positions="none",
    )
    model = Transformer(config, rngs=nnx.Rngs(0))
    tokens = jax.random.randint(jax.random.key(2), (B, T), 0, 11)
    text = jax.random.randint(jax.random.key(3), (1, T + 2), 0, 11)
    noise = jax.random.normal(jax.random.key(4), (1, T, M))
    run = nnx.jit(
        lambda model, tokens, stream: apply_with_stream(model, config, tokens, stream=stream)
    )
    # A text that is its own stream is the plain model; so is a batch of one the same as of two.
    near(run(model, tokens[:1], tokens[:1]), model(tokens)[:1], 1e-5)
    alone = apply_with_stream(model, config, tokens[:1], stream=text)
    near(run(model, tokens, text)[:1], alone, 1e-5)

    # What queries and keys of the last layer see after the first layer's MLP has changed.
    def last_context(model, stream):
        seen = []
        mixer = model.blocks[1].mixer.pair
        spy = lambda params, x, **keywords: (
            seen.append(keywords.get("context")) or mixer.apply(params, x, **keywords)
        )
        model.blocks[1].mixer.pair = mixer._replace(apply=spy)
        apply_with_stream(model, config, tokens, stream=stream)
        model.blocks[1].mixer.pair = mixer
        return next(c for c in seen if c is not None)

    before = [last_context(model, stream) for stream in (None, noise)]
    kernel = model.blocks[0].mlp.up.kernel
    kernel[...] = kernel[...] + 1.0
    after = [last_context(model, stream) for stream in (None, noise)]
    near(before[0], after[0])
    assert np.abs(before[1] - after[1]).max() > 1e-3


def test_skipped_layers_are_not_there():
    config = TransformerConfig(
        vocab_size=11, dim=M, heads=H, layers=2, mechanisms=("gated_mlp", "softmax_attention")
    )
    model = Transformer(config, rngs=nnx.Rngs(0))
    tokens = jnp.arange(T)[None]
    shorter = without_layers(model, (0,))
    silent = nnx.clone(model)
    silent.blocks[0].mixer.params["output"][...] = jnp.zeros((16, M))
    silent.blocks[0].mlp.down.kernel[...] = jnp.zeros((4 * M, M))
    near(shorter(tokens), silent(tokens))
    assert len(model.blocks) == 2


def test_bad_input_is_named(plain_checks):
    config = TransformerConfig(vocab_size=11, dim=M, mechanisms="softmax_attention")
    other = TransformerConfig(vocab_size=11, dim=M, mechanisms="decoupled_attention")
    tokens = jnp.zeros((B, T), int)
    mixer = decoupled.make(dim=M, heads=H)
    params = mixer.init(jax.random.key(0))
    for call, message in (
        (
            lambda: apply_with_stream(Transformer(config, rngs=nnx.Rngs(0)), config, tokens),
            "config: expected a layer of decoupled_attention, got softmax_attention",
        ),
        (
            lambda: apply_with_stream(
                Transformer(other, rngs=nnx.Rngs(0)), other, tokens, stream=tokens[:1, 1:]
            ),
            "stream: expected at least 7 tokens, got 6",
        ),
        (lambda: mixer.apply(params, X, context=X[:, 1:]), "context: expected shape"),
        (lambda: taylor.make(dim=M, heads=H, normalize="x"), "normalize: expected one of"),
        (lambda: gated_mlp.make(dim=M, heads=H, causal=False), "causal: gated_mlp mixes no"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
