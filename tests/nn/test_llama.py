"""Llama against a forward pass written out in NumPy; caches, padding, files and adapters."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from jattn.nn import Llama, LlamaConfig, generate, lora_init, lora_merge
from jattn.nn.llama_weights import HUGGING_FACE_NAMES
from jattn.nn.lora import Adapter

CONFIG = LlamaConfig(
    vocab_size=23, dim=16, layers=2, heads=4, kv_heads=2, hidden=24, rotary_base=100.0
)
UNTIED = dataclasses.replace(CONFIG, head_dim=6, tie_embeddings=False)
TOKENS = np.random.default_rng(0).integers(0, 23, (2, 7))


@jax.enable_x64(False)
def made():
    return Llama(CONFIG, rngs=nnx.Rngs(0)), Llama(UNTIED, rngs=nnx.Rngs(1))


MODEL, OTHER = made()


def by_hand(model, tokens):
    """Logits `[t, vocab]` of one row in float64, head by head, position by position."""
    c, w = model.config, jax.tree.map(lambda x: np.asarray(x, np.float64), model.arrays())
    norm = lambda x, g: x / np.sqrt((x**2).mean(-1, keepdims=True) + c.eps) * g
    half = c.width // 2

    def turned(x, t):
        angle = t * c.rotary_base ** (-np.arange(half) / half)
        a, b = x[:half], x[half:]
        return np.concatenate(
            [a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)]
        )

    x = w["embed"][tokens]
    for layer in range(c.layers):
        u = {name: array[layer] for name, array in w["layers"].items()}
        n = norm(x, u["attention_norm"])
        q, k, v = (n @ u[name] for name in ("query", "key", "value"))
        z = np.zeros_like(q)
        for t in range(len(tokens)):
            for h in range(c.heads):
                mine = slice(h * c.width, (h + 1) * c.width)
                group = h * c.kv_heads // c.heads
                theirs = slice(group * c.width, (group + 1) * c.width)
                scores = [turned(q[t, mine], t) @ turned(k[s, theirs], s) for s in range(t + 1)]
                p = np.exp(np.array(scores) / np.sqrt(c.width))
                z[t, mine] = p / p.sum() @ v[: t + 1, theirs]
        x = x + z @ u["output"]
        n = norm(x, u["mlp_norm"])
        gate = n @ u["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (n @ u["up"])) @ u["down"]
    x = norm(x, w["norm"])
    return x @ (w["embed"].T if c.tie_embeddings else w["head"])


@pytest.mark.parametrize("model", [MODEL, OTHER], ids=["tied", "untied"])
def test_against_numpy(model):
    logits = model(jnp.asarray(TOKENS))
    for row in range(2):
        np.testing.assert_allclose(logits[row], by_hand(model, TOKENS[row]), atol=2e-5)


def test_padding_on_either_side_changes_nothing():
    tokens = jnp.asarray(TOKENS)
    alone = MODEL(tokens)
    pad = jnp.full((2, 3), 5)
    real = jnp.array([False] * 3 + [True] * 7)
    left = MODEL(jnp.concatenate([pad, tokens], 1), mask=jnp.broadcast_to(real, (2, 10)))
    right = MODEL(jnp.concatenate([tokens, pad], 1), mask=jnp.broadcast_to(real[::-1], (2, 10)))
    np.testing.assert_allclose(left[:, 3:], alone, atol=2e-6)
    np.testing.assert_allclose(right[:, :7], alone, atol=2e-6)


def test_later_tokens_reach_no_earlier_logits():
    changed = TOKENS.copy()
    changed[:, 4] = (changed[:, 4] + 1) % 23
    before, after = MODEL(jnp.asarray(TOKENS)), MODEL(jnp.asarray(changed))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert np.abs(before[:, 4] - after[:, 4]).max() > 1e-3


def test_prefill_and_steps_give_the_logits_of_one_pass():
    tokens = jnp.asarray(TOKENS)
    expected = MODEL(tokens)
    # Four real tokens, one of padding behind them.
    logits, state = MODEL.prefill(tokens[:, :5], MODEL.init_state(2, 7), 4)
    np.testing.assert_allclose(logits, expected[:, 3], atol=2e-6)
    step = nnx.jit(lambda model, token, state: model.step(token, state))
    for index in range(4, 7):
        logits, state = step(MODEL, tokens[:, index], state)
        np.testing.assert_allclose(logits, expected[:, index], atol=2e-6)
    assert np.isnan(step(MODEL, tokens[:, 0], state)[0]).all()  # no room


def test_generation_is_the_likeliest_token_each_time_and_padding_changes_nothing():
    prompt = jnp.asarray(TOKENS)
    new = generate(MODEL, prompt, 3)
    longer = jnp.concatenate([prompt, new], 1)
    np.testing.assert_array_equal(new, MODEL(longer)[:, 6:-1].argmax(-1))
    mask = jnp.array([[False, False, True, True, True, True, True], [True] * 5 + [False] * 2])
    ragged = generate(MODEL, prompt, 3, mask=mask)
    for row, part in enumerate((slice(2, 7), slice(0, 5))):
        np.testing.assert_array_equal(ragged[row], generate(MODEL, prompt[row, part][None], 3)[0])


def test_bfloat16_is_near():
    half = Llama(dataclasses.replace(CONFIG, dtype="bfloat16"), rngs=nnx.Rngs(0))
    assert half.arrays()["layers"]["query"].dtype == jnp.bfloat16
    logits, expected = half(jnp.asarray(TOKENS)), MODEL(jnp.asarray(TOKENS))
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, expected, atol=0.05 * np.abs(expected).max())
    assert generate(half, jnp.asarray(TOKENS), 2).shape == (2, 2)


def write_folder(folder, model, dtype: Any = np.float32, **config):
    """The model as Hugging Face keeps it: matrices with outputs first, two files."""
    c, w = model.config, jax.tree.map(np.asarray, model.arrays())
    arrays = {"model.embed_tokens.weight": w["embed"], "model.norm.weight": w["norm"]}
    if not c.tie_embeddings:
        arrays["lm_head.weight"] = w["head"].T
    for ours, theirs in HUGGING_FACE_NAMES.items():
        for layer in range(c.layers):
            arrays[f"model.layers.{layer}.{theirs}.weight"] = w["layers"][ours][layer].T
    names, kind = sorted(arrays), {np.float32: "F32", ml_dtypes.bfloat16: "BF16"}[dtype]
    for number, part in enumerate((names[::2], names[1::2])):
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        body = b""
        for name in part:
            data = np.ascontiguousarray(arrays[name]).astype(dtype).tobytes()
            header[name] = {
                "dtype": kind, "shape": list(arrays[name].shape),
                "data_offsets": [len(body), len(body) + len(data)],
            }  # fmt: skip
            body += data
        text = json.dumps(header).encode()
        file = folder / f"model-{number}.safetensors"
        file.write_bytes(len(text).to_bytes(8, "little") + text + body)
    stated = {
        "model_type": "llama", "vocab_size": c.vocab_size, "hidden_size": c.dim,
        "num_hidden_layers": c.layers, "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads, "intermediate_size": c.hidden, "head_dim": c.head_dim,
        "rope_theta": c.rotary_base, "rms_norm_eps": c.eps,
        "tie_word_embeddings": c.tie_embeddings, "max_position_embeddings": c.max_length,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(stated | config))


@pytest.mark.parametrize("model", [MODEL, OTHER], ids=["tied", "untied"])
def test_a_folder_of_safetensors(tmp_path, model):
    write_folder(tmp_path, model)
    read = Llama.from_safetensors(tmp_path)
    assert read.config == model.config
    jax.tree.map(np.testing.assert_array_equal, read.arrays(), model.arrays())
    write_folder(tmp_path, model, dtype=ml_dtypes.bfloat16)
    half = Llama.from_safetensors(tmp_path, dtype="bfloat16")
    rounded = model.arrays()["layers"]["query"].astype(jnp.bfloat16)
    np.testing.assert_array_equal(half.arrays()["layers"]["query"], rounded)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt2"}, "expected model_type 'llama', got 'gpt2'"),
        ({"attention_bias": True}, "attention_bias: expected none, got True"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling: expected none, got 'llama3'"),
        ({"num_hidden_layers": 3}, r"expected an array 'model.layers.2.*', found none"),
        ({"num_hidden_layers": 1}, "Llama has no weights model.layers.1"),
        ({"hidden_size": 8}, r"expected shape \[23, 8\], got \[23, 16\]"),
        ({"num_key_value_heads": 3}, "kv_heads: expected a divisor of heads=4, got 3"),
    ],
)
def test_foreign_folders_are_refused(tmp_path, config, message):
    write_folder(tmp_path, MODEL, **config)
    with pytest.raises(ValueError, match=message):
        Llama.from_safetensors(tmp_path)


def test_damaged_safetensors_are_one_line(tmp_path):
    write_folder(tmp_path, MODEL)
    file = tmp_path / "model-0.safetensors"
    data, rng = file.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        at = int(rng.integers(1200))  # in the header
        cut = data[: int(rng.integers(len(data)))]
        changed = data[:at] + rng.bytes(2) + data[at + 2 :]
        file.write_bytes(cut if rng.integers(2) else changed)
        try:
            Llama.from_safetensors(tmp_path)
        except ValueError as error:
            refused += 1
            found = str(error)
            assert "\n" not in found
    assert refused > 80


def test_adapters_add_what_they_say_and_train_alone():
    layers = MODEL.arrays()["layers"]
    targets = ("query", "key", "value", "output", "gate", "up", "down")
    adapters = lora_init(jax.random.key(0), layers, rank=2, targets=targets)
    same = lora_merge(layers, adapters)
    jax.tree.map(np.testing.assert_array_equal, same, layers)
    adapters = {n: Adapter(a.down, jnp.ones_like(a.up)) for n, a in adapters.items()}
    merged = lora_merge(layers, adapters, scale=0.5)
    for name in targets:
        x = jax.random.normal(jax.random.key(1), (2, 3, layers[name].shape[1]))
        down, up = adapters[name]
        apart = x @ layers[name] + 0.5 * (x @ down) @ up
        np.testing.assert_allclose(x @ merged[name], apart, atol=1e-5)

    def loss(adapters):
        weights = MODEL.arrays() | {"layers": lora_merge(layers, adapters)}
        return Llama(CONFIG, weights=weights)(jnp.asarray(TOKENS)).var()

    grads = jax.jit(jax.grad(loss))(adapters)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(grads))
    with pytest.raises(ValueError, match=r"targets: expected any of .*query, .*, got 'other'"):
        lora_init(jax.random.key(0), layers, rank=2, targets=("other",))
    with pytest.raises(ValueError, match=r"key: expected a map \[2, 16, 8\], got \[2, 16, 16\]"):
        lora_merge(layers, {"key": adapters["query"]})


def test_sampling_the_likeliest_is_greedy_and_keys_decide():
    prompt = jnp.asarray(TOKENS)
    draw = lambda seed, **options: generate(MODEL, prompt, 3, key=jax.random.key(seed), **options)
    np.testing.assert_array_equal(draw(0, top_k=1), generate(MODEL, prompt, 3))
    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()


def test_wrong_arguments(plain_checks):
    with pytest.raises(ValueError, match="tokens: expected 0 to 22, got 23"):
        MODEL(jnp.full((1, 3), 23))
    assert np.isnan(jax.jit(MODEL)(jnp.full((1, 1), 23))).all()
    with pytest.raises(ValueError, match="tokens: expected an integer array, got float32"):
        MODEL(jnp.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"mask: expected shape \[b=1, t=3\], got \[1, 4\]"):
        MODEL(jnp.zeros((1, 3), int), mask=jnp.ones((1, 4), bool))
    with pytest.raises(ValueError, match=r"rngs: expected nnx.Rngs, or weights, got neither"):
        Llama(CONFIG)
    with pytest.raises(ValueError, match="head_dim: rotary positions need an even one, got 3"):
        dataclasses.replace(CONFIG, head_dim=3)
