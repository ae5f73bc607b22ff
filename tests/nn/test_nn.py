"""Flax modules: any mechanism as a layer, decoding, functional use, the linen bridge."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jattn
from jattn.nn import Block, Mixer, Transformer, TransformerConfig, generate

STREAMING = [name for name in jattn.zoo.names(kind="mixer") if jattn.zoo.info(name).streaming]
# One of each kind of state; that all mixers stream is tested without a model around them.
SOME = (
    "softmax_attention",
    "window_query_attention",
    "gated_delta_rule",
    "flow_attention",
    "titans_mac",
    "gated_mlp",
)
VOCAB = 20
TOKENS = jax.random.randint(jax.random.key(3), (2, 9), 0, VOCAB)


def small(**changes: Any) -> Transformer:
    options: dict[str, Any] = dict(
        vocab_size=VOCAB, dim=16, heads=2, layers=2, mlp_ratio=2.0, max_length=16
    )
    config = TransformerConfig(**(options | changes))
    # One compilation is quicker than one of every little operation.
    return nnx.jit(lambda: Transformer(config, rngs=nnx.Rngs(0)))()


def function(model):
    """The model as a compiled function of its parameters and tokens, and the parameters."""
    definition, params = nnx.split(model)
    return jax.jit(lambda p, tokens: nnx.merge(definition, p)(tokens)), params


@jax.jit(static_argnames=("definition", "room"))
def whole_and_stepped(definition, params, tokens, room):
    model = nnx.merge(definition, params)

    def one(state, token):
        logits, state = model.step(token, state)
        return state, logits

    state = model.init_state(tokens.shape[0], room)
    return model(tokens), jax.lax.scan(one, state, tokens.T)[1].swapaxes(0, 1)


def test_sinusoids_are_added_to_embeddings():
    """As learned places of the same vectors would be, in whole sequences and token by token."""
    model, learned = small(positions="sinusoidal"), small(positions="learned")
    learned.embed, learned.blocks, learned.norm = model.embed, model.blocks, model.norm
    waves = jattn.attention.positions.sinusoids(jnp.arange(16), 16) / 4
    assert learned.places is not None
    learned.places.embedding[...] = waves
    expected = learned(TOKENS)
    whole, stepped = whole_and_stepped(*nnx.split(model), TOKENS, 9)
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    np.testing.assert_allclose(stepped, expected, atol=1e-5)
    with pytest.raises(ValueError, match="dim: sinusoidal positions need an even one, got 15"):
        TransformerConfig(vocab_size=5, dim=15, heads=3, positions="sinusoidal")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.smoke if name in SOME else pytest.mark.slow)
        for name in STREAMING
    ],
)
def test_decoding_equals_the_whole_sequence(name):
    # The other layer is softmax, so that a recurrent state and a cache live side by side.
    model = small(mechanisms=(name, "softmax_attention"), positions="rotary", mlp_ratio=0.0)
    whole, stepped = whole_and_stepped(*nnx.split(model), TOKENS, TOKENS.shape[1])
    assert float(jnp.std(whole)) > 1e-2
    np.testing.assert_allclose(stepped, whole, atol=2e-5)


def test_decoding_with_learned_positions_and_tokens_beyond_the_room():
    model = small(mechanisms=("softmax_attention", {"kv_heads": 1}), tie_embeddings=False)
    whole, stepped = whole_and_stepped(*nnx.split(model), TOKENS, 7)
    np.testing.assert_allclose(stepped[:, :7], whole[:, :7], atol=2e-5)
    assert np.isnan(np.asarray(stepped[:, 7:])).all()
    moved = nnx.jit(lambda m: m(TOKENS, positions=jnp.arange(9) + jnp.array([[5], [6]])))(model)
    assert float(jnp.abs(whole - moved).max()) > 1e-3


def test_decoder_is_causal_and_encoder_is_not():
    changed = TOKENS.at[:, 6].set((TOKENS[:, 6] + 1) % VOCAB)
    decoder, encoder = function(small()), function(small(causal=False))
    difference = [np.abs(f(p, TOKENS) - f(p, changed))[:, :6].max() for f, p in (decoder, encoder)]
    assert difference[0] == 0
    assert difference[1] > 1e-4


def test_encoder_and_its_gradient_do_not_see_padding():
    definition, params = nnx.split(small(causal=False, mechanisms="sigmoid_attention"))
    real = jnp.broadcast_to(jnp.arange(9) < 6, TOKENS.shape)

    @jax.jit
    def loss_and_gradient(params, tokens):
        def loss(params):
            logits = nnx.merge(definition, params)(tokens, mask=real)
            return jnp.where(real, jax.nn.logsumexp(logits, -1), 0).sum()

        return jax.value_and_grad(loss)(params)

    loss, gradient = loss_and_gradient(params, TOKENS)
    other = loss_and_gradient(params, jnp.where(real, TOKENS, (TOKENS + 1) % VOCAB))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), (loss, gradient), other)
    short = jax.jit(lambda p, tokens: nnx.merge(definition, p)(tokens))(params, TOKENS[:, :6])
    assert float(loss) == pytest.approx(float(jax.nn.logsumexp(short, -1).sum()), rel=1e-5)
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all()
        assert np.any(leaf)


def test_bfloat16_is_near_float32():
    changes: dict[str, Any] = dict(mechanisms=("softmax_attention", "retention"))
    wide, narrow = small(**changes), small(**changes, dtype="bfloat16")
    assert {p.dtype for p in jax.tree.leaves(nnx.state(narrow))} == {jnp.dtype("float32")}
    apply, params = function(wide)
    logits, (whole, stepped) = (
        apply(params, TOKENS),
        whole_and_stepped(*nnx.split(narrow), TOKENS, 9),
    )
    assert whole.dtype == jnp.float32
    assert 0 < float(jnp.abs(whole - logits).max()) < 0.1
    np.testing.assert_allclose(stepped, whole, atol=0.1)


def test_generate_takes_the_likeliest_token_or_draws():
    model = small()
    apply, params = function(model)
    new = generate(model, TOKENS[:, :4], 3)
    # A causal model: tokens not yet there do not matter, and one compiled length serves all.
    tokens = TOKENS[:, :7]
    for t in range(4, 7):
        tokens = tokens.at[:, t].set(jnp.argmax(apply(params, tokens)[:, t - 1], -1))
    np.testing.assert_array_equal(new, tokens[:, 4:])

    def draw(seed, temperature):
        return generate(model, TOKENS[:, :4], 3, key=jax.random.key(seed), temperature=temperature)

    np.testing.assert_array_equal(draw(1, 1e-4), new)
    hot = draw(1, 1e4)
    np.testing.assert_array_equal(hot, draw(1, 1e4))
    assert np.any(hot != draw(2, 1e4))
    assert np.ptp(np.asarray(hot), axis=1).all()
    # Nearly uniform: six tokens among twenty are not all the likeliest.
    assert np.any(hot != new)


def test_blocks_add_to_what_they_are_given_after_a_norm():
    rngs = nnx.Rngs(0)
    x = jax.random.normal(jax.random.key(0), (1, 4, 8))
    mixer = Mixer("softmax_attention", dim=8, heads=2, rngs=rngs)
    bare = nnx.jit(lambda block, x: block(x) - x)
    added = bare(Block(mixer, 8, 0.0, rngs=rngs), x)
    np.testing.assert_allclose(bare(Block(mixer, 8, 0.0, rngs=rngs), 10 * x), added, atol=1e-5)
    full = Block(mixer, 8, 2.0, rngs=rngs)
    assert full.mlp is not None
    assert float(jnp.abs(bare(full, x) - added).max()) > 1e-2
    full.mlp.down.kernel[...] *= 0
    np.testing.assert_allclose(bare(full, x), added, atol=1e-6)


def test_every_layer_has_a_key_of_its_own():
    model = small(mlp_ratio=0.0)
    keys = []

    def listen(params, x, /, *, context, mask, positions, key):
        keys.append(jax.random.key_data(key).tolist())
        return x

    for block in model.blocks:
        block.mixer.pair = block.mixer.pair._replace(apply=listen)
    model(TOKENS, key=jax.random.key(0))
    assert len(keys) == 2
    assert keys[0] != keys[1]


def test_functional_training_lowers_the_loss():
    mechanisms = ("softmax_attention", ("gated_delta_rule", {}))
    definition, params = nnx.split(small(mechanisms=mechanisms), nnx.Param)
    optimizer = optax.adam(1e-2)

    def loss(params):
        logits = nnx.merge(definition, params)(TOKENS)
        return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], TOKENS[:, 1:]).mean()

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, optimizer.init(params)), length=30)[1]

    losses = train(params)
    assert float(losses[-1]) < 0.5 * float(losses[0])


def test_mixer_wraps_a_pair_with_any_tree_of_parameters():
    inner = jattn.zoo.make("softmax_attention", dim=8, heads=2)
    pair = inner._replace(
        init=lambda key: [inner.init(key), {"gain": jnp.array(2.0)}, None],
        apply=lambda p, x, /, **options: p[1]["gain"] * inner.apply(p[0], x, **options),
    )
    module, plain = (
        Mixer(pair, rngs=nnx.Rngs(0)),
        Mixer("softmax_attention", dim=8, heads=2, rngs=nnx.Rngs(0)),
    )
    x, context = jax.random.normal(jax.random.key(0), (2, 1, 4, 8))
    expected = plain(x, context=context)
    np.testing.assert_allclose(module(x, context=context), 2 * expected, rtol=1e-6)
    definition, params = nnx.split(module, nnx.Param)
    assert len(jax.tree.leaves(params)) == 5
    tripled = jax.tree.map(lambda p: 3 * p if p.ndim == 0 else p, params)
    y = nnx.merge(definition, tripled)(x, context=context)
    np.testing.assert_allclose(y, 6 * expected, rtol=1e-6)


def test_linen_users_find_a_bridge():
    block = re.search(r"```python\n(.*?)```", Path("docs/linen.md").read_text(), re.DOTALL)
    assert block is not None
    scope: dict = {}
    exec(compile(block[1], "docs/linen.md", "exec"), scope)
    assert scope["y"].shape == scope["x"].shape
    assert float(jnp.abs(scope["y"] - scope["x"]).max()) > 1e-3
    mixer = jattn.zoo.make("gated_delta_rule", dim=32, heads=4, causal=True)
    own = mixer.init(jax.random.key(0))
    assert set(scope["variables"]["params"]["mixer"]["params"]) == set(own)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "heads: expected a divisor of dim=16, got 3"),
        ({"layers": 0}, "layers: expected at least 1, got 0"),
        ({"mlp_ratio": -1.0}, "mlp_ratio: expected at least 0, got -1.0"),
        ({"dim": 16.0}, "dim: expected an integer of at least 1, got 16.0"),
        ({"layers": True}, "layers: expected an integer of at least 1, got True"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio: expected a number of at least 0, got nan"),
        ({"causal": 1}, "causal: expected True or False, got 1"),
        ({"short_convolution": 2, "causal": False}, "short_convolution: expected a width"),
        ({"dtype": "float16"}, "dtype: expected one of 'float32', 'bfloat16', got 'float16'"),
        (
            {"positions": "absolute"},
            "positions: expected one of 'none', 'learned', 'sinusoidal', 'rotary'",
        ),
        ({"positions": "rotary", "mechanisms": "retention"}, "no layer's mechanism can rotate"),
        ({"mechanisms": ("softmax_attention",) * 3}, "one for each of 2 layers, got 3"),
        ({"mechanisms": ("softmax_attention", 3)}, "expected a name or (name, options), got 3"),
        ({"mechanisms": "softmax_atention"}, "did you mean softmax_attention"),
        ({"mechanisms": ("sigmoid_attention", {"window": 2})}, "unknown option 'window'"),
        ({"mechanisms": "retention", "causal": False}, "only a causal form"),
    ],
)
def test_bad_configs_are_one_clear_line(plain_checks, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        TransformerConfig(**({"vocab_size": VOCAB, "dim": 16, "heads": 2} | changes))
    assert "\n" not in str(error.value)


def test_bad_inputs_are_one_clear_line(plain_checks):
    model = small()
    prompt = TOKENS[:, :4]
    pair = jattn.zoo.make("softmax_attention", dim=8, heads=2)
    for message, call in {
        "tokens: expected 2 axes": lambda: model(TOKENS[0]),
        "tokens: learned positions reach to 16 tokens, got 17": lambda: model(
            jnp.zeros((1, 17), int)
        ),
        "max_length: learned positions reach to 16 tokens, got 17": lambda: model.init_state(1, 17),
        "an encoder does not decode": lambda: small(causal=False).init_state(1, 4),
        "expected one with a step form": lambda: Mixer(pair, rngs=nnx.Rngs(0)).init_state(1, 4),
        "dim: a pair is made already": lambda: Mixer(pair, dim=8, rngs=nnx.Rngs(0)),
        "prompt: expected 2 axes": lambda: generate(model, prompt[0], 2),
        "prompt: expected at least one token": lambda: generate(model, prompt[:, :0], 2),
        "length: expected at least 1, got 0": lambda: generate(model, prompt, 0),
        "temperature: expected a positive": lambda: generate(model, prompt, 2, temperature=0.0),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
