"""Layers of Flax on `attend`, and weights of PyTorch, against what those compute."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jattn
from jattn.nn import attention_fn, from_torch_attention

T, M, H, G = 5, 16, 4, 2
RNG = np.random.default_rng(0)


def layers(**options: Any):
    """The same layer of Flax with its own attention, and with ours."""
    own: dict[str, Any] = dict(num_heads=H, in_features=M, decode=False) | options
    make = lambda f: nnx.MultiHeadAttention(rngs=nnx.Rngs(0), attention_fn=f, **own)
    ours = own.pop("attention_fn", attention_fn)
    return make(nnx.dot_product_attention), make(ours)


def same(theirs, ours, *arrays, tolerance=2e-6, **options):
    call = nnx.jit(lambda layer: layer(*arrays, **options))
    expected, found = call(theirs), call(ours)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(
        np.asarray(found, np.float32), np.asarray(expected, np.float32), atol=tolerance
    )
    return found


def test_a_layer_of_flax_with_masks_contexts_and_batch_axes():
    x, context = RNG.normal(size=(2, 3, T, M)), RNG.normal(size=(2, 3, T - 2, M))
    x, context = jnp.asarray(x, jnp.float32), jnp.asarray(context, jnp.float32)
    theirs, ours = layers()
    plain = same(theirs, ours, x[0])
    causal = nnx.make_causal_mask(x[0, :, :, 0])  # of floats
    assert causal.dtype == jnp.float32
    masked = same(theirs, ours, x[0], mask=causal)
    assert float(jnp.abs(masked - plain).max()) > 1e-2
    np.testing.assert_allclose(same(theirs, ours, x[0], is_causal=True), masked, atol=2e-6)
    per_head = jnp.asarray(RNG.random((2, 3, H, T, T)) < 0.7) | jnp.eye(T, dtype=bool)
    same(theirs, ours, x, mask=per_head)
    same(theirs, ours, x[0], mask=per_head[0], is_causal=True)
    same(theirs, ours, x[0], context[0], mask=per_head[0, :, :, :, : T - 2].at[..., 0].set(True))
    same(*layers(num_kv_heads=G), x[0])
    same(*layers(dtype=jnp.bfloat16), x[0], tolerance=2e-2)
    # Ours knows what each array may leave out.
    shared = per_head[:1, :1]
    full = jnp.broadcast_to(shared, per_head.shape)
    np.testing.assert_allclose(ours(x, mask=shared), ours(x, mask=full), atol=2e-6)
    np.testing.assert_allclose(ours(x[0, 0]), plain[0], atol=2e-6)


def test_bias_is_that_of_flax():
    query, key, value = jnp.asarray(RNG.normal(size=(3, 2, T, H, 8)), jnp.float32)
    for shape in ((2, H, T, T), (1, H, 1, T), (H, T, T), (T, T)):
        bias = jnp.asarray(RNG.normal(size=shape), jnp.float32)
        full = jnp.broadcast_to(bias, (2, H, T, T))
        expected = nnx.dot_product_attention(query, key, value, bias=full)
        np.testing.assert_allclose(attention_fn(query, key, value, bias), expected, atol=2e-6)


def test_decoding_with_the_cache_of_flax():
    theirs, ours = layers(decode=True)
    x = jnp.asarray(RNG.normal(size=(2, T, M)), jnp.float32)
    whole = nnx.jit(lambda m: m(x, decode=False, is_causal=True))(ours)
    for layer in (theirs, ours):
        layer.init_cache((2, T, M))
    step = nnx.jit(lambda layer, x: layer(x))
    for t in range(T):
        expected, found = (step(layer, x[:, t : t + 1]) for layer in (theirs, ours))
        np.testing.assert_allclose(found, expected, atol=2e-6)
        np.testing.assert_allclose(found[:, 0], whole[:, t], atol=2e-6)


def test_gradients_and_sown_weights():
    theirs, ours = layers()
    x = jnp.asarray(RNG.normal(size=(2, T, M)), jnp.float32)
    slope = nnx.jit(nnx.grad(lambda layer: (layer(x, is_causal=True) ** 2).sum()))
    for a, b in zip(*(jax.tree.leaves(slope(layer)) for layer in (theirs, ours)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    sown = []
    for layer in (theirs, ours):
        _, found = nnx.capture(layer, nnx.Intermediate)(x, sow_weights=True)
        sown.append(found["attention_weights"][0])
    np.testing.assert_allclose(sown[1], sown[0], atol=2e-6)


def test_dropout():
    """Weights are dropped at the rate, and their mean stays; not where it is deterministic."""
    options: dict[str, Any] = dict(dropout_rate=0.5, deterministic=False)
    _, ours = layers(broadcast_dropout=False, **options)
    x = jnp.asarray(RNG.normal(size=(2, T, M)), jnp.float32)
    still = ours(x, deterministic=True)
    np.testing.assert_allclose(still, layers()[1](x), atol=2e-6)
    assert float(jnp.abs(ours(x) - still).max()) > 1e-2
    n = 64
    query, value = jnp.zeros((1, n, 1, 4)), jnp.ones((1, n, 1, 1))
    found = attention_fn(
        query, query, value * jnp.eye(n)[None, :, None],
        dropout_rng=jax.random.key(0), broadcast_dropout=False, dropout_rate=0.25,
    )  # fmt: skip
    dropped = np.asarray(found) == 0
    assert abs(dropped.mean() - 0.25) < 0.03
    np.testing.assert_allclose(np.asarray(found)[~dropped], 1 / n / 0.75, rtol=1e-5)
    with pytest.raises(ValueError, match="broadcast_dropout: expected False"):
        layers(**options)[1](x)


def test_more_of_attend():
    ours = layers(attention_fn=functools.partial(attention_fn, normalizer="sigmoid"))[1]
    x = jnp.asarray(RNG.normal(size=(2, T, M)), jnp.float32)
    query, key, value = (layer(x) for layer in (ours.query, ours.key, ours.value))
    score = np.einsum("bthd,bshd->bhts", query, key) / (M // H) ** 0.5
    expected = ours.out(jnp.einsum("bhts,bshd->bthd", 1 / (1 + np.exp(-score)), value))
    np.testing.assert_allclose(ours(x), expected, atol=1e-5)


def test_what_flax_would_take_wrong_is_refused(plain_checks):
    x = jnp.ones((1, T, H, 4))
    for message, options in {
        "mask: expected True and False, or 1 and 0, got -inf": dict(
            mask=jnp.where(jnp.eye(T) > 0, 0.0, -jnp.inf)
        ),
        "precision: expected None": dict(precision="highest"),
        "dropout_key": dict(dropout_rate=0.5, broadcast_dropout=False),
    }.items():
        wrong: Any = options
        with pytest.raises(ValueError, match=message):
            attention_fn(x, x, x, **wrong)


class Tensor:
    """As much of PyTorch's tensor as there is without it: NumPy must not read it by itself."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    cpu = double = detach

    def numpy(self):
        return self.array

    def __array__(self, *args, **kwargs):
        raise TypeError("Got unsupported ScalarType BFloat16")


def by_torchs_formula(x, query, key, value, output, heads, causal):
    """`nn.functional.linear` is x W^T; every head by itself, key-value heads in turn."""
    b, t, _ = x.shape
    q, k, v = (x @ w.T for w in (query, key, value))
    size = q.shape[-1] // heads
    out = np.zeros_like(q)
    for row in range(b):
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            shared = head // (heads // (k.shape[-1] // size))
            theirs = slice(shared * size, (shared + 1) * size)
            score = q[row, :, own] @ k[row, :, theirs].T / np.sqrt(size)
            if causal:
                score = np.where(np.tri(t), score, -np.inf)
            weight = np.exp(score - score.max(-1, keepdims=True))
            weight /= weight.sum(-1, keepdims=True)
            out[row, :, own] = weight @ v[row, :, theirs]
    return out @ output.T


@pytest.mark.parametrize("kind", ["multihead", "separate", "llama", "grouped"])
def test_weights_of_torch(kind):
    kv = M // H * G if kind == "grouped" else M
    query, output = RNG.normal(size=(2, M, M)) / M**0.5
    key, value = RNG.normal(size=(2, kv, M)) / M**0.5
    prefix = ""
    if kind == "multihead":
        state = {"in_proj_weight": np.concatenate([query, key, value]), "out_proj.weight": output}
        state |= {"in_proj_bias": np.zeros(3 * M), "out_proj.bias": np.zeros(M)}
    elif kind == "separate":
        state = {f"{n}_proj_weight": w for n, w in zip("qkv", (query, key, value), strict=True)}
        state |= {"out_proj.weight": output}
    else:
        prefix = "model.layers.1.self_attn."
        weights = zip("qkvo", (query, key, value, output), strict=True)
        state = {f"{prefix}{n}_proj.weight": Tensor(w) for n, w in weights}
        state |= {f"{prefix}rotary_emb.inv_freq": np.ones(2)}
        state |= {"model.layers.11.self_attn.q_proj.weight": Tensor(key)}
    params = from_torch_attention(state, prefix=prefix)
    assert {p.dtype for p in params.values()} == {jnp.dtype("float32")}
    kv_heads = G if kind == "grouped" else H
    x = RNG.normal(size=(2, T, M))
    for causal in (False, True):
        layer = jattn.zoo.make(
            "softmax_attention", dim=M, heads=H, causal=causal, kv_heads=kv_heads
        )
        expected = by_torchs_formula(x, query, key, value, output, H, causal)
        found = layer.apply(params, jnp.asarray(x, jnp.float32))
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_weights_that_do_not_fit_are_named():
    eye = np.eye(M)
    llama = {f"{n}_proj.weight": eye for n in "qkvo"}
    for message, state in {
        "q_proj.bias: expected zeros, as softmax_attention has no biases": llama
        | {"q_proj.bias": np.ones(M)},
        "q_norm.weight: softmax_attention has no such parameter": llama
        | {"q_norm.weight": np.ones(4)},
        "state_dict: expected one of o_proj.weight, .* got k_proj.weight, q_proj.weight": {
            name: eye for name in llama if name[0] != "o"
        },
        "expected one of q_proj.weight, .* got nothing": {},
        "got q_proj.weight, q_proj_weight": llama | {"q_proj_weight": eye},
        r"in_proj_weight: expected shape \[3 m, m\], got \[16, 16\]": {"in_proj_weight": eye},
        "key: expected a divisor of the queries' 16 channels, got 6": llama
        | {"k_proj.weight": np.ones((6, M)), "v_proj.weight": np.ones((6, M))},
        r"value: expected weights \[8, 16\] by those of the queries, got \[16, 16\]": llama
        | {"k_proj.weight": np.ones((8, M))},
        r"output: expected a matrix, got shape \[16\]": llama | {"o_proj.weight": np.ones(M)},
    }.items():
        with pytest.raises(ValueError, match=message) as error:
            from_torch_attention(state)
        assert "\n" not in str(error.value)
