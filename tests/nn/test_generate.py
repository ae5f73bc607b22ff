"""Generation: ragged prompts, ends, choices among the likeliest, and what is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jattn.nn import Transformer, TransformerConfig, generate
from jattn.nn.generate import likeliest

VOCAB, T, NEW = 20, 6, 4
PROMPT = jax.random.randint(jax.random.key(3), (3, T), 0, VOCAB)
LENGTHS = (6, 2, 4)
MECHANISMS = ("softmax_attention", "gated_delta_rule", "gated_mlp")


def small(**changes: Any) -> Transformer:
    options: dict[str, Any] = dict(
        vocab_size=VOCAB,
        dim=16,
        heads=2,
        layers=3,
        mlp_ratio=2.0,
        max_length=16,
        mechanisms=MECHANISMS,
    )
    config = TransformerConfig(**options | changes)
    return nnx.jit(lambda: Transformer(config, rngs=nnx.Rngs(0)))()


@pytest.fixture(scope="module")
def model() -> Transformer:
    return small()


@pytest.fixture(scope="module")
def tiny() -> Transformer:
    return small(mechanisms="softmax_attention", layers=1)


def alone(model):
    """Each prompt by itself, and the likeliest token of the whole sequence again and again."""
    apply = nnx.jit(lambda model, tokens: model(tokens))
    rows = []
    for row, length in zip(PROMPT, LENGTHS, strict=True):
        tokens = jnp.zeros((1, T + NEW), int).at[0, :length].set(row[:length])
        for t in range(length, length + NEW):  # a causal model: what comes later does not matter
            tokens = tokens.at[0, t].set(jnp.argmax(apply(model, tokens)[0, t - 1]))
        rows.append(tokens[0, length : length + NEW])
    return np.stack(rows)


def padded(side: str):
    """Prompts with padding on a side, or within; and the mask."""
    rows, masks = [], []
    for row, length in zip(np.asarray(PROMPT), LENGTHS, strict=True):
        places = {
            "right": np.arange(length),
            "left": np.arange(T - length, T),
            "within": np.linspace(0, T - 1, length).round().astype(int),
        }[side]
        mask = np.isin(np.arange(T), places)
        padded = np.full(T, 7)
        padded[places] = row[:length]
        rows.append(padded)
        masks.append(mask)
    return jnp.array(rows), jnp.array(masks)


@pytest.fixture(scope="module")
def by_itself(model):
    return alone(model)


@pytest.mark.parametrize("side", ["right", "left", "within"])
def test_ragged_prompts_are_as_if_alone(model, by_itself, side):
    prompt, mask = padded(side)
    np.testing.assert_array_equal(generate(model, prompt, NEW, mask=mask), by_itself)


def test_with_rotary_positions_and_short_convolutions():
    mechanisms = ("softmax_attention", "gated_delta_rule")
    model = small(positions="rotary", short_convolution=3, mechanisms=mechanisms, layers=2)
    prompt, mask = padded("left")
    np.testing.assert_array_equal(generate(model, prompt, NEW, mask=mask), alone(model))


def test_rows_end(model, by_itself):
    end = int(by_itself[1, 1])
    prompt, mask = padded("right")
    expected = np.array(by_itself)
    for row in expected:
        for t in np.flatnonzero(row == end)[:1]:
            row[t + 1 :] = -5
    assert (expected == -5).sum() >= NEW - 2
    np.testing.assert_array_equal(
        generate(model, prompt, NEW, mask=mask, end=end, pad=-5), expected
    )
    expected[expected == -5] = end
    np.testing.assert_array_equal(generate(model, prompt, NEW, mask=mask, end=end), expected)


def test_all_rows_at_their_end_stop_the_loop(tiny):
    """A prompt whose first new token is the end costs one pass, whatever is asked for."""
    first = int(generate(tiny, PROMPT[:1], 1)[0, 0])
    found = generate(tiny, PROMPT[:1], 9, end=first, pad=0)
    np.testing.assert_array_equal(found, [[first] + [0] * 8])


def test_the_likeliest():
    share = np.array([[0.1, 0.4, 0.05, 0.25, 0.2], [0.2, 0.2, 0.2, 0.2, 0.2]])
    logits = jnp.log(share) + 3.0

    def kept(row=0, **options):
        found = np.asarray(jax.jit(lambda x: likeliest(x, **options))(logits))
        stays = np.isfinite(found)
        np.testing.assert_array_equal(found[stays], np.asarray(logits)[stays])
        return set(np.flatnonzero(stays[row]).tolist())

    assert kept(top_k=2) == {1, 3}
    assert kept(1, top_k=2) == {0, 1, 2, 3, 4}  # all as likely
    assert kept(top_p=0.3) == {1}
    assert kept(top_p=0.41) == {1, 3}
    assert kept(top_p=0.84) == {1, 3, 4}
    assert kept(top_p=1.0) == {0, 1, 2, 3, 4}
    assert kept(top_p=1e-9) == {1}
    # Of the two likeliest, 0.4 / 0.65 alone have more than 0.6.
    assert kept(top_k=2, top_p=0.6) == {1}
    assert kept(top_k=2, top_p=0.62) == {1, 3}


def test_draws_follow_the_shares(tiny):
    prompt = jnp.broadcast_to(PROMPT[:1], (4000, T))
    logits = nnx.jit(lambda model: model(PROMPT[:1]))(tiny)[0, -1]
    ways: Any = ({"temperature": 2.0}, {"top_k": 3}, {"top_p": 0.5, "temperature": 0.7})
    for options in ways:
        scaled = np.asarray(logits, np.float64) / options.get("temperature", 1.0)
        share = np.exp(scaled - scaled.max())
        share /= share.sum()
        order = np.argsort(-share)
        keep = order[: options.get("top_k", VOCAB)]
        if "top_p" in options:
            keep = order[: 1 + int((np.cumsum(share[order]) < options["top_p"]).sum())]
        expected = np.zeros(VOCAB)
        expected[keep] = share[keep] / share[keep].sum()
        found = generate(tiny, prompt, 1, key=jax.random.key(0), **options)[:, 0]
        counts = np.bincount(found, minlength=VOCAB) / 4000
        assert not counts[expected == 0].any()
        error = 5 * np.sqrt(expected * (1 - expected) / 4000)
        assert (np.abs(counts - expected) <= error).all()


def test_the_prompt_is_read_at_once():
    """One program, in which attention is over all tokens of the prompt, and not one loop."""
    model = small(mechanisms="softmax_attention")
    definition, variables = nnx.split(model)

    def read(variables, prompt):
        model = nnx.merge(definition, variables)
        return model.prefill(prompt, model.init_state(3, T + 2))

    text = str(jax.make_jaxpr(read)(variables, PROMPT))
    assert "scan" not in text
    assert "while" not in text


def test_prefill_is_the_model_and_its_steps(model):
    def both(model, tokens):
        logits, state = model.prefill(tokens[:, :-1], model.init_state(3, T))
        last, _ = model.step(tokens[:, -1], state)
        return model(tokens), logits, last

    whole, logits, last = nnx.jit(both)(model, PROMPT)
    np.testing.assert_allclose(logits, whole[:, -2], atol=2e-5)
    np.testing.assert_allclose(last, whole[:, -1], atol=2e-5)


def test_tokens_outside_the_vocabulary(model):
    for wrong in (-1, VOCAB, 2**31 - 1):
        tokens = PROMPT.at[1, 2].set(wrong)
        with pytest.raises(ValueError, match=f"tokens: expected 0 to 19, got {wrong}"):
            model(tokens)
        with pytest.raises(ValueError, match=f"prompt: expected 0 to 19, got {wrong}"):
            generate(model, tokens, 2)
        # Where they cannot be refused: NaN, in their row.
        bad = np.isnan(nnx.jit(lambda model, tokens: model(tokens))(model, tokens)).any(-1)
        assert bad[1, 2:].all()
        assert not bad[::2].any()
    # Padding may be anything.
    prompt, mask = padded("left")
    generate(model, jnp.where(mask, prompt, -100), 1, mask=mask)
    with pytest.raises(ValueError, match="positions: expected 0 to 15, got 16"):
        model(PROMPT, positions=jnp.full((3, T), 16))


def test_nan_in_logits_is_no_token(tiny):
    tokens = PROMPT.at[1, 2].set(VOCAB)
    definition, variables = nnx.split(tiny)
    traced = jax.jit(lambda v, tokens: generate(nnx.merge(definition, v), tokens, 3))
    found = traced(variables, tokens)
    np.testing.assert_array_equal(found[1], -1)
    np.testing.assert_array_equal(found[::2], generate(tiny, PROMPT, 3)[::2])
    broken = nnx.clone(tiny)
    broken.norm.scale[...] = broken.norm.scale[...].at[0].set(jnp.nan)
    with pytest.raises(FloatingPointError, match="logits: NaN in row 0, new token 0"):
        generate(broken, PROMPT, 3)
    # Later, in one row: where the learned position is spoilt.
    late = nnx.clone(tiny)
    assert late.places is not None
    late.places.embedding[...] = late.places.embedding[...].at[4].set(jnp.nan)
    mask = jnp.arange(T) < jnp.array([[1], [2]])
    with pytest.raises(FloatingPointError, match="logits: NaN in row 1, new token 3"):
        generate(late, PROMPT[:2], 4, mask=mask)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": jnp.ones((3, 5), bool)}, "mask: expected shape"),
        ({"mask": jnp.ones((3, T))}, "mask: expected a bool array, got float32"),
        ({"mask": jnp.array([[True], [False], [True]]).repeat(T, 1)}, "got none in row 1"),
        ({"top_k": 0}, "top_k: expected at least 1, got 0"),
        ({"top_k": 2.5}, "top_k: expected an integer"),
        ({"top_p": 0.0}, "top_p: expected a positive number, got 0.0"),
        ({"top_p": 1.5}, "top_p: expected at most 1, got 1.5"),
        ({"temperature": float("nan")}, "temperature: expected a positive number, got nan"),
        ({"end": VOCAB}, "end: expected 0 to 19, got 20"),
        ({"key": 0}, "key: expected one of jax.random.key, got 0"),
        ({"end": "stop"}, "end: expected an integer"),
        ({"pad": 0.5}, "pad: expected an integer"),
        ({"length": 12}, "max_length: learned positions reach to 16 tokens, got 17"),
    ],
)
def test_bad_options_are_named(plain_checks, model, options, message):
    with pytest.raises(ValueError, match=message):
        generate(model, PROMPT, **({"length": 2, "key": jax.random.key(0)} | options))
