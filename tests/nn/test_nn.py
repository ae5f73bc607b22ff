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
from jattn.nn import Mixer, Transformer, TransformerConfig, generate

STREAMING = [name for name in jattn.zoo.names() if jattn.zoo.info(name).streaming]
TOKENS = jax.random.randint(jax.random.key(3), (2, 9), 0, 20)


def small(**changes):
    options: dict[str, Any] = dict(vocab_size=20, dim=16, heads=2, layers=2, mlp_ratio=2.0, max_length=16)
    return Transformer(TransformerConfig(**(options | changes)), rngs=nnx.Rngs(0))


def decode(model, tokens):
    definition, params = nnx.split(model)

    @jax.jit
    def run(params, tokens):
        def one(state, token):
            logits, state = nnx.merge(definition, params).step(token, state)
            return state, logits

        state = nnx.merge(definition, params).init_state(*tokens.shape)
        return jax.lax.scan(one, state, tokens.T)[1].swapaxes(0, 1)

    return run(params, tokens)


@pytest.mark.smoke
@pytest.mark.parametrize("name", STREAMING)
def test_decoding_equals_the_whole_sequence(name):
    # The other layer is softmax, so that a recurrent state and a cache live side by side.
    model = small(mechanisms=(name, "softmax_attention"))
    whole = model(TOKENS)
    assert float(jnp.std(whole)) > 1e-2
    np.testing.assert_allclose(decode(model, TOKENS), whole, atol=2e-5)


def test_learned_positions_decode_too():
    model = small(positions="learned", tie_embeddings=False, mlp_ratio=0.0)
    np.testing.assert_allclose(decode(model, TOKENS), model(TOKENS), atol=2e-5)
    first = model(TOKENS[:, :1])[:, 0]
    moved = model(TOKENS[:, :1], positions=jnp.full((2, 1), 5))[:, 0]
    assert float(jnp.abs(first - moved).max()) > 1e-3


def test_decoder_is_causal_and_encoder_is_not():
    changed = TOKENS.at[:, 6].set((TOKENS[:, 6] + 1) % 20)
    decoder, encoder = small(), small(causal=False)
    np.testing.assert_array_equal(decoder(TOKENS)[:, :6], decoder(changed)[:, :6])
    assert float(jnp.abs(encoder(TOKENS)[:, :6] - encoder(changed)[:, :6]).max()) > 1e-4


def test_padding_does_not_matter():
    model, mask = small(causal=False), jnp.arange(9) < 6
    padded = model(TOKENS, mask=jnp.broadcast_to(mask, TOKENS.shape))
    np.testing.assert_allclose(padded[:, :6], model(TOKENS[:, :6]), atol=1e-5)


def test_generate_continues_with_the_likeliest_token():
    model = small()
    new = generate(model, TOKENS[:, :4], 3)
    tokens = TOKENS[:, :4]
    for _ in range(3):
        tokens = jnp.concatenate([tokens, jnp.argmax(model(tokens)[:, -1:], -1)], 1)
    np.testing.assert_array_equal(new, tokens[:, 4:])
    drawn = generate(model, TOKENS[:, :4], 8, key=jax.random.key(1), temperature=5.0)
    assert drawn.shape == (2, 8)
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < 20


def test_functional_training_lowers_the_loss():
    definition, params = nnx.split(small(mechanisms=("softmax_attention", STREAMING[0])), nnx.Param)
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


def test_mixer_wraps_a_pair_and_its_nested_parameters():
    inner = jattn.zoo.make("softmax_attention", dim=8, heads=2)
    pair = inner._replace(
        init=lambda key: {"a": inner.init(key), "gain": jnp.ones(())},
        apply=lambda p, x, /, **options: p["gain"] * inner.apply(p["a"], x, **options),
    )
    module = Mixer(pair, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 4, 8))
    module.params["gain"][...] = jnp.array(2.0)
    plain = Mixer("softmax_attention", dim=8, heads=2, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(module(x), 2 * plain(x), rtol=1e-6)


def test_linen_users_find_a_bridge():
    block = re.search(r"```python\n(.*?)```", Path("docs/linen.md").read_text(), re.DOTALL)
    assert block is not None
    scope: dict = {}
    exec(compile(block[1], "docs/linen.md", "exec"), scope)
    assert scope["y"].shape == scope["x"].shape
    assert len(jax.tree.leaves(scope["variables"]["params"])) > 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "heads: expected a divisor of dim=16, got 3"),
        ({"layers": 0}, "layers: expected at least 1, got 0"),
        ({"positions": "absolute"}, "positions: expected one of 'none', 'learned', 'rotary'"),
        ({"mechanisms": ("softmax_attention",) * 3}, "one for each of 2 layers, got 3"),
        ({"mechanisms": "softmax_atention"}, "did you mean softmax_attention"),
        ({"mechanisms": ("sigmoid_attention", {"window": 2})}, "unknown option 'window'"),
        ({"mechanisms": "sigmoid_attention"}, "no layer's mechanism can rotate"),
    ],
)
def test_bad_configs_are_one_clear_line(plain_checks, changes, message):
    positions = {} if "positions" in changes or "rotate" in message else {"positions": "rotary"}
    if "window" in message:
        positions = {"positions": "none"}
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        small(**positions, **changes)
    assert "\n" not in str(error.value)


def test_bad_inputs_are_one_clear_line(plain_checks):
    model = small(positions="learned")
    with pytest.raises(ValueError, match="tokens: expected 2 axes"):
        model(TOKENS[0])
    with pytest.raises(ValueError, match="learned positions reach to 16, got length 17"):
        model(jnp.zeros((1, 17), int))
    with pytest.raises(ValueError, match="an encoder does not decode"):
        small(causal=False).init_state(1, 4)
    with pytest.raises(ValueError, match="no causal step form"):
        Mixer("softmax_attention", dim=8, heads=2, rngs=nnx.Rngs(0)).init_state(1, 4)
    with pytest.raises(ValueError, match="a Mixer pair takes no options"):
        Mixer(jattn.zoo.make("softmax_attention", dim=8, heads=2), dim=8, rngs=nnx.Rngs(0))
