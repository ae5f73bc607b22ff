"""Edits and records: nothing is nothing, what is equal is equal, gradients are right."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jattn import lens
from jattn.lens.edits import of_layer
from jattn.nn import Llama, LlamaConfig, Transformer, TransformerConfig

V, B, T, L, H, D = 13, 2, 6, 2, 4, 4
CONFIG = LlamaConfig(vocab_size=V, dim=16, layers=L, heads=H, kv_heads=2, hidden=24)
TOKENS = np.random.default_rng(0).integers(0, V, (B, T))
RNG = np.random.default_rng(1)


@jax.enable_x64(False)
def made():
    sharp = lambda name, x: 4 * x if name in ("query", "key") else x
    llama = Llama(CONFIG, rngs=nnx.Rngs(0))
    weights = llama.arrays()
    layers = {name: sharp(name, x) for name, x in weights["layers"].items()}
    make = lambda name: Transformer(
        TransformerConfig(vocab_size=V, dim=16, layers=L, heads=H, mechanisms=name),
        rngs=nnx.Rngs(0),
    )
    names = ("softmax_attention", "gated_delta_rule", "linear_attention", "sigmoid_attention")
    return Llama(CONFIG, weights=weights | {"layers": layers}), {n: make(n) for n in names}


MODEL, OTHERS = made()
SOFTMAX = OTHERS["softmax_attention"]
BASE = MODEL(jnp.asarray(TOKENS))


def run(*edits: Any, model: Any = MODEL, record=(), **options):
    return lens.run(model, jnp.asarray(TOKENS), edits=edits, record=record, **options)


def near(a, b, tolerance=2e-6, said=""):
    np.testing.assert_allclose(a, b, atol=tolerance, err_msg=said)


def test_without_edits_it_is_the_model_and_records_change_nothing():
    np.testing.assert_array_equal(run()[0], BASE)
    logits, found = run(record=lens.SITES)
    near(logits, BASE)
    assert {name: x.shape[0] for name, x in found.items()} == dict.fromkeys(lens.SITES, L)
    near(found["resid_mid"], found["resid_pre"] + found["attn_out"])
    near(found["resid_post"], found["resid_mid"] + found["mlp_out"])
    probs, value = found["probs"], jnp.repeat(found["v"], 2, axis=3)
    near(found["z"], jnp.einsum("lbhts,lbshd->lbthd", probs, value))
    assert not np.triu(probs, 1).any()
    near(probs.sum(-1), 1)
    hidden = jnp.where(jnp.tril(jnp.ones((T, T), bool)), found["logits"], -jnp.inf)
    near(jax.nn.softmax(hidden, -1), probs)


@pytest.mark.parametrize("name", OTHERS)
def test_every_mechanism_has_a_map_and_it_is_exact(name):
    model = OTHERS[name]
    base = model(jnp.asarray(TOKENS))
    np.testing.assert_array_equal(run(model=model)[0], base)
    logits, found = run(model=model, record=lens.transformer_sites(model))
    near(logits, base)
    maps = lens.effective_attention(model, jnp.asarray(TOKENS))
    near(maps, found["probs"])
    near(found["z"], jnp.einsum("lbhts,lbshd->lbthd", maps, found["v"]), 1e-5)
    # Silence in all heads leaves what is left without them, and one head changes something.
    one = run(lens.ablate(lens.heads_of([(1, 2)], L, H)), model=model)[0]
    assert np.abs(one - base).max() > 1e-4
    silent = run(lens.ablate(jnp.ones((L, H))), model=model, record=("attn_out",))[1]
    near(silent["attn_out"], 0)


def test_identities():
    tokens = np.arange(T)
    ones = jnp.ones((1, 1, 1, 1, T))
    zero = jnp.zeros((L, H, D))
    first, rest = jnp.asarray(tokens == 0)[None, None, None, None], jnp.asarray(tokens > 0)
    for edit in (
        lens.HeadAffine(zero, zero),
        lens.KeyReweight(ones),
        lens.LogitBias(0 * ones),
        lens.BudgetMove(first, rest[None, None, None, None], 1.0),
        lens.ResidAdd(jnp.ones((L, 16)), 0.0),
        lens.Replace(zero[:, None, None], jnp.zeros((1, 1, 1, 1, 1), bool)),
        lens.HeadAffine(zero - 1, where=jnp.zeros((1, 1, T), bool)),
        lens.At("probs", lambda probs, data, seen: probs),
    ):
        near(run(edit)[0], BASE, said=type(edit).__name__)


def test_reweighted_keys_are_a_bias_and_stay_fused():
    weight = jnp.asarray(RNG.uniform(0.1, 3, (L, B, H, T, T)), jnp.float32)

    def reweighted(probs, weight, seen):
        return probs * weight / (probs * weight).sum(-1, keepdims=True)

    edit, dense = lens.KeyReweight(weight), lens.At("probs", reweighted, weight)
    near(run(edit)[0], run(dense)[0], 1e-5)
    assert lens.explain(MODEL, edits=[edit]).startswith("fused")
    assert lens.explain(MODEL, edits=[dense]) == (
        "dense: [b, h, t, s] is held in every layer, for probs"
    )
    # A weight of zero hides a key, and a bias cannot show one that the mask hides.
    hide = jnp.where(jnp.arange(T) == 1, 0.0, 1.0)[None, None, None, None]
    assert not run(lens.KeyReweight(hide), record=("probs",))[1]["probs"][..., 1].any()
    shown = run(lens.LogitBias(jnp.full((1, 1, 1, T, T), 50.0)), record=("probs",))[1]["probs"]
    assert not np.triu(shown, 1).any()


def test_edits_compose_in_order():
    a, b, c, d = (jnp.asarray(RNG.normal(size=(L, H, D)), jnp.float32) for _ in range(4))
    one = lens.HeadAffine((1 + a) * (1 + c) - 1, b * (1 + c) + d)
    near(run(lens.HeadAffine(a, b), lens.HeadAffine(c, d))[0], run(one)[0], 1e-4)
    add = lens.ResidAdd(jnp.asarray(RNG.normal(size=(L, 16)), jnp.float32), 2.0)
    double = lens.HeadAffine(jnp.ones((1, 1)), site="resid_post")
    assert np.abs(run(add, double)[0] - run(double, add)[0]).max() > 1e-3


def test_all_heads_at_once_are_as_one_by_one():
    one_hot = jnp.eye(L * H).reshape(-1, L, H)
    silenced = lambda heads: run(lens.ablate(heads))[0][:, -1]
    together = jax.jit(jax.vmap(silenced))(one_hot)
    for index in (0, L * H - 1):
        near(together[index], silenced(one_hot[index]), 1e-5)
        assert np.abs(together[index] - BASE[:, -1]).max() > 1e-4


def test_a_budget_moves_and_rows_keep_their_sums():
    probs = jnp.asarray(RNG.dirichlet(np.ones(T), (3, T)), jnp.float32)
    source, target = jnp.arange(T) == 1, jnp.arange(T) > 2
    moved = lens.move_budget(probs, source, target, 0.25)
    near(moved.sum(-1), probs.sum(-1))
    near(moved[..., 1], 0.25 * probs[..., 1])
    near(moved[..., jnp.array([0, 2])], probs[..., jnp.array([0, 2])])
    near(moved[..., 3] * probs[..., 4], moved[..., 4] * probs[..., 3])  # in proportion
    empty = lens.move_budget(probs, source, jnp.zeros(T, bool), 0.25)
    np.testing.assert_array_equal(empty, probs)


def test_gradients_of_every_edit_are_those_of_differences(x64):
    """In float64, in a random direction of all arrays of an edit."""
    weights = jax.tree.map(lambda x: x.astype(jnp.float64), MODEL.arrays())
    model = Llama(CONFIG, weights=weights)
    draw = lambda *shape: jnp.asarray(RNG.normal(size=shape))
    first = (jnp.arange(T) == 0)[None, None, None, None]
    edits = (
        lens.HeadAffine(0.1 * draw(L, H, D), draw(L, H, D)),
        lens.KeyReweight(jnp.exp(draw(L, 1, H, 1, T))),
        lens.LogitBias(draw(L, 1, H, T, 1) * draw(1, 1, 1, 1, T)),
        lens.ResidAdd(draw(L, 16), draw(L)),
        jnp.full((L, 1, H, 1, 1), 0.4),
    )

    def loss(edits):
        *others, keep = edits
        chosen = [*others, lens.BudgetMove(first, ~first, keep)]
        return lens.run(model, jnp.asarray(TOKENS), edits=chosen)[0].var()

    way = jax.tree.map(lambda x: draw(*x.shape), edits)
    along = lambda step: jax.tree.map(lambda x, w: x + step * w, edits, way)
    grads = jax.grad(loss)(edits)
    assert all(np.abs(grad).max() > 0 for grad in jax.tree.leaves(grads))
    slope = sum(jnp.vdot(*pair) for pair in zip(*map(jax.tree.leaves, (grads, way)), strict=True))
    numeric = (loss(along(1e-5)) - loss(along(-1e-5))) / 2e-5
    np.testing.assert_allclose(slope, numeric, rtol=1e-6)


def test_padding_and_bfloat16():
    real = jnp.array([[True] * 6, [False] * 2 + [True] * 4])
    edit = lens.ablate(lens.heads_of([(0, 0)], L, H))
    padded = run(edit, mask=real)[0][1, 2:]
    alone = lens.run(MODEL, jnp.asarray(TOKENS[1:, 2:]), edits=[edit])[0][0]
    near(padded, alone, 1e-5)
    half = Llama(dataclasses.replace(CONFIG, dtype="bfloat16"), rngs=nnx.Rngs(0))
    logits, found = run(edit, model=half, record=("probs", "z"))
    assert np.isfinite(logits).all()
    assert found["z"].dtype == jnp.bfloat16


def test_an_edit_of_probs_in_a_recurrent_model_changes_its_reads():
    model = OTHERS["gated_delta_rule"]
    near(
        run(lens.HeadAffine(jnp.full((1, 1, 1), -1.0)), model=model)[0],
        run(lens.At("probs", lambda probs, data, seen: 0 * probs), model=model)[0],
        1e-5,
    )


@pytest.mark.parametrize("model", [MODEL, SOFTMAX], ids=["llama", "transformer"])
def test_logits_of_one_token_of_each_text(model):
    at = jnp.array([5, 2])
    edit = lens.ablate(lens.heads_of([(0, 1)], L, H))
    for edits, record in (((), ()), ((edit,), ("z",))):
        logits, found = run(*edits, model=model, record=record)
        chosen, same = run(*edits, model=model, record=record, at=at)
        assert chosen.shape == (B, V)
        near(chosen, logits[jnp.arange(B), at])
        for site in record:
            near(found[site], same[site])
    with pytest.raises(ValueError, match="at: expected 0 to 5, got 6"):
        run(model=model, at=jnp.array([6, 0]))


def test_a_stream_goes_on_from_a_layer_as_if_it_came_all_the_way():
    add = lens.ResidAdd(jnp.asarray([[0.0], [1.0], [0.0]]) * RNG.normal(size=16), 3.0)
    config = dataclasses.replace(CONFIG, layers=3)
    model = Llama(config, rngs=nnx.Rngs(1))
    at = jnp.array([5, 2])
    before = run(model=model, record=("resid_post",))[1]["resid_post"][1]
    logits, found = lens.resume(model, add(before, 1, {}), 1, record=("z", "resid_post"), at=at)
    whole, recorded = run(add, model=model, record=("z", "resid_post"), at=at)
    assert np.abs(whole - run(model=model, at=at)[0]).max() > 1e-2
    near(logits, whole, 1e-5)
    for site in ("z", "resid_post"):
        near(found[site], recorded[site][2:], 1e-5)
    for layer in (-1, 2):
        with pytest.raises(ValueError, match=f"layer: expected 0 to 1, got {layer}"):
            lens.resume(model, before, layer)


def test_what_a_layer_has_seen_is_there_for_functions():
    def from_stream(probs, data, seen):
        assert set(seen) >= {"resid_pre", "q", "k", "v", "logits", "mask"}
        return probs + 0 * seen["resid_pre"].sum()

    near(run(lens.At("probs", from_stream))[0], BASE)


def test_arrays_of_layers():
    assert of_layer(jnp.arange(3), 2) == 2
    assert of_layer(jnp.arange(1), 2) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"record": ("depth",)}, "record: expected one of 'resid_pre', .*, got 'depth'"),
        ({"edits": [lens.HeadAffine(jnp.ones((5, H, 1)))]},
         r"edits\[0\].scale: expected \[L=2, ...\] or \[1, ...\], got shape \[5, 4, 1\]"),
        ({"edits": [lens.HeadAffine(jnp.ones((L, 3, 1)))]},
         r"edits: HeadAffine at z: it does not fit \[2, 6, 4, 4\]"),
        ({"edits": [lens.ResidAdd(jnp.ones((L, 1, 1, 1, 1)))]},
         r"ResidAdd at resid_post: expected a value of shape \[2, 6, 16\], got \[1, 2, 6, 16\]"),
        ({"edits": [lambda value: value]}, r"edits\[0\]: expected an edit of jattn.lens"),
        ({"edits": [lens.At("depth", abs)]}, r"edits\[0\].site: expected one of .*, got 'depth'"),
        ({"model": OTHERS["linear_attention"], "record": ("logits",)}, "got 'logits'"),
        ({"model": 3}, "model: expected a jattn.nn.Llama or Transformer, got int"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line(plain_checks, options, message):
    model = options.pop("model", MODEL)
    with pytest.raises(ValueError, match=message) as caught:
        lens.run(model, jnp.asarray(TOKENS), **options)
    assert "\n" not in str(caught.value)
