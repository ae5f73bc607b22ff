"""Swapped attention patterns: nothing changes where nothing should, and dense weights agree."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jattn.lens.pattern_swap import (
    Pattern,
    attention_patterns,
    swap_pattern,
    with_patterns,
)
from jattn.mechanisms.layers import heads as p
from jattn.nn import Transformer, TransformerConfig

V, B, T = 11, 2, 6
CONFIG = TransformerConfig(
    vocab_size=V, dim=8, heads=2, layers=1, mlp_ratio=0.0, positions="rotary"
)
DEEP = TransformerConfig(
    vocab_size=V, dim=16, heads=4, layers=3, mlp_ratio=1.0,
    mechanisms=("softmax_attention", {"kv_heads": 2}),
)  # fmt: skip


@jax.enable_x64(False)
def made():
    models = [Transformer(CONFIG, rngs=nnx.Rngs(seed)) for seed in (0, 1)]
    tokens = jax.random.randint(jax.random.key(0), (B, T), 0, V)
    return *models, Transformer(DEEP, rngs=nnx.Rngs(2)), tokens


MODEL, DONOR, LARGE, TOKENS = made()


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


def test_with_itself_nothing_changes_at_all():
    for model, config in ((MODEL, CONFIG), (LARGE, DEEP)):
        swapped = swap_pattern(model, config, TOKENS, model, config)
        np.testing.assert_array_equal(swapped, model(TOKENS))
    nothing: Any = ({"layers": ()}, {"heads": ()}, {"mix": 0.0})
    for options in nothing:
        swapped = swap_pattern(MODEL, CONFIG, TOKENS, DONOR, CONFIG, **options)
        np.testing.assert_array_equal(swapped, MODEL(TOKENS))
    assert np.abs(swap_pattern(MODEL, CONFIG, TOKENS, DONOR, CONFIG) - swapped).max() > 1e-3


@pytest.mark.parametrize("mix", [0.3, 1.0])
def test_against_dense_weights(mix):
    """A one-layer model by hand: weights of both are mixed, values are its own."""

    def weights(pattern):
        scores = jnp.einsum("bthd,bshd->bhts", *pattern) / 2.0
        return jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((T, T), bool)), scores, -jnp.inf))

    own, other = (weights(attention_patterns(m, CONFIG, TOKENS)[0]) for m in (MODEL, DONOR))
    mixed = own.at[:, 1].set((1 - mix) * own[:, 1] + mix * other[:, 1])
    x = MODEL.embed(TOKENS)
    block = MODEL.blocks[0]
    params = block.mixer.arrays()
    value = p.split_heads(block.mixer_norm(x) @ params["value"], 2)
    x = x + p.project_output(params, p.merge_heads(jnp.einsum("bhts,bshe->bthe", mixed, value)))
    expected = MODEL.embed.attend(MODEL.norm(x))
    near(swap_pattern(MODEL, CONFIG, TOKENS, DONOR, CONFIG, heads=(1,), mix=mix), expected)


def test_the_past_does_not_see_the_future():
    later = TOKENS.at[:, 4].set((TOKENS[:, 4] + 1) % V)
    run = jax.jit(lambda tokens: swap_pattern(MODEL, CONFIG, tokens, LARGE, DEEP, mix=0.5))
    changed = np.abs(run(later) - run(TOKENS)).max((0, 2))
    assert (changed[:4] == 0).all()
    assert (changed[4:] > 0).all()


def test_heads_that_are_not_read_do_not_matter():
    silent = nnx.clone(MODEL)
    output = silent.blocks[0].mixer.params["output"]
    output[...] = output[...].at[4:].set(0.0)  # the rows of head 1
    swapped = swap_pattern(silent, CONFIG, TOKENS, DONOR, CONFIG, heads=(1,))
    near(swapped, silent(TOKENS))
    assert np.abs(swap_pattern(silent, CONFIG, TOKENS, DONOR, CONFIG) - swapped).max() > 1e-3


def test_layers_and_heads_are_mapped():
    found = attention_patterns(LARGE, DEEP, TOKENS)
    assert [pattern.key.shape for pattern in found] == [(B, T, 2, 4)] * 3
    # Head h of four takes that of h mod 2, and the three layers those of 0, round(0.5) and 1.
    small = attention_patterns(MODEL, CONFIG, TOKENS)
    pair = [*small, *attention_patterns(DONOR, CONFIG, TOKENS)]
    spread = [
        Pattern(*(x[:, :, [0, 1, 0, 1]] for x in pair[layer])) for layer in (0, round(0.5), 1)
    ]
    near(with_patterns(LARGE, DEEP, TOKENS, pair), with_patterns(LARGE, DEEP, TOKENS, spread), 1e-6)
    # Zeros are uniform attention, whatever the tokens of the donor were.
    uniform = [Pattern(0 * pattern.query, 0 * pattern.key) for pattern in small]
    x = MODEL.embed(TOKENS)
    block = MODEL.blocks[0]
    params = block.mixer.arrays()
    value = p.split_heads(block.mixer_norm(x) @ params["value"], 2)
    mean = jnp.cumsum(value, 1) / jnp.arange(1, T + 1)[:, None, None]
    expected = MODEL.embed.attend(MODEL.norm(x + p.project_output(params, p.merge_heads(mean))))
    near(with_patterns(MODEL, CONFIG, TOKENS, uniform), expected)
    other = swap_pattern(MODEL, CONFIG, TOKENS, MODEL, CONFIG, donor_tokens=TOKENS[:, ::-1])
    assert np.abs(other - MODEL(TOKENS)).max() > 1e-3


def test_bad_input_is_named(plain_checks):
    sink = TransformerConfig(vocab_size=V, dim=8, mechanisms=("softmax_attention", {"sink": True}))
    other = TransformerConfig(vocab_size=V, dim=8, mechanisms="sigmoid_attention")
    own = attention_patterns(MODEL, CONFIG, TOKENS)
    for call, message in (
        (lambda: with_patterns(MODEL, CONFIG, TOKENS, own, layers=(1,)), "layers: expected any of"),
        (lambda: with_patterns(MODEL, CONFIG, TOKENS, own, heads=(2,)), "heads: expected any of 0"),
        (
            lambda: with_patterns(MODEL, CONFIG, TOKENS[:, 1:], own),
            "patterns[0].query: expected shape",
        ),
        (
            lambda: attention_patterns(Transformer(sink, rngs=nnx.Rngs(0)), sink, TOKENS),
            "config: expected layers of plain softmax_attention, got softmax_attention with sink",
        ),
        (
            lambda: attention_patterns(Transformer(other, rngs=nnx.Rngs(0)), other, TOKENS),
            "config: expected layers of plain softmax_attention, got sigmoid_attention",
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
