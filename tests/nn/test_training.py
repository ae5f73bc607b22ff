"""What mixers have to say in training: averages that move, losses that are heard."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jattn
from experiments.functional import as_functions, decoder, training_loss
from experiments.functional import cross_entropy as copying_loss
from jattn.mechanisms.combinators import gated, mixture, routed, short_convolution
from jattn.mechanisms.softmax.affine_attention import affine_attention
from jattn.nn import (
    Mixer,
    Transformer,
    TransformerConfig,
    VisionTransformer,
    VisionTransformerConfig,
    statistics,
)
from jattn.tasks.copying import copying
from jattn.training import Parallel, Run, fit

VOCAB, T, M, H, SEEDS, BATCH = 11, 6, 16, 4, 2, 8
X = jax.random.normal(jax.random.key(1), (2, T, M))


def configured(mechanisms: Any, **changes: Any) -> TransformerConfig:
    options: dict[str, Any] = dict(dim=M, heads=H, layers=2, mlp_ratio=1.0, max_length=T)
    return TransformerConfig(vocab_size=VOCAB, mechanisms=mechanisms, **options | changes)


def sample(key):
    return jax.random.randint(key, (T,), 0, VOCAB // 2)


def cross_entropy(logits, tokens):
    return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens[:, 1:]).mean()


def trained(tmp_path, model, loss, steps, optimizer, parallel=None):
    with Run.open(tmp_path, {}, name="statistics", parallel=parallel) as run:
        sizes: Any = dict(seeds=SEEDS, steps=steps, batch_size=BATCH)
        return fit(model.init, loss, sample, optimizer, run=run, name="fit", **sizes).params


def alphas(model, tokens):
    """Each layer's mean of alpha, from its weights and its input."""
    x, found = model.embed(tokens) + model.places(jnp.arange(T)), []
    for block in model.blocks:
        here = block.mixer_norm(x)
        found.append(jnp.clip(0.1 * here @ block.mixer.params["alpha"][...] + 0.5, 0, 1).mean())
        x = block(x)
    return jnp.stack(found)


# Two seeds do not spread over four devices: the second way splits every batch.
@pytest.mark.parametrize(
    "parallel",
    [
        None,
        pytest.param(Parallel("shard_map", {"data": 4, "model": 1}), marks=pytest.mark.slow),
    ],
    ids=["seeds", "batch"],
)
def test_averages_of_a_model_are_those_of_alpha_over_training(tmp_path, parallel):
    """Against training by hand; the optimizer's weight decay would halve them in a few steps."""
    steps, optimizer = 60, optax.adamw(1e-3, weight_decay=100.0)
    settings = configured("affine_attention")
    functions = decoder(settings)

    def loss(params, tokens):
        return training_loss(functions, params, tokens, lambda y: cross_entropy(y, tokens))

    params = trained(tmp_path, functions, loss, steps, optimizer, parallel)

    def batch(data, n):
        key = jax.random.fold_in(data, n)
        return jax.vmap(lambda j: sample(jax.random.fold_in(key, j)))(jnp.arange(BATCH))

    @jax.jit
    @jax.vmap
    def by_hand(seed):
        first, data = jax.random.split(jax.random.fold_in(jax.random.key(0), seed))
        model = Transformer(settings, rngs=nnx.Rngs(params=first))
        definition, weights, average = nnx.split(model, nnx.Param, nnx.BatchStat)
        names, tree = jax.tree.flatten(average)

        def step(carry, n):
            weights, optimizer_state, averages = carry
            build = lambda weights: nnx.merge(definition, weights, tree.unflatten(averages))
            tokens = batch(data, n)
            gradient = jax.grad(lambda w: cross_entropy(build(w)(tokens), tokens))(weights)
            moved = 0.9 * averages + 0.1 * alphas(build(weights), tokens)
            updates, optimizer_state = optimizer.update(gradient, optimizer_state, weights)
            return (optax.apply_updates(weights, updates), optimizer_state, moved), None

        start = (weights, optimizer.init(weights), jnp.zeros(len(names)))
        (weights, _, averages), _ = jax.lax.scan(step, start, jnp.arange(steps))
        model = nnx.merge(definition, weights, tree.unflatten(averages))
        return averages, alphas(model, batch(data, steps - 1))

    averages, means = by_hand(jnp.arange(SEEDS))
    for i in range(SEEDS):
        model = functions.module([leaf[i] for leaf in params])
        found = [block.mixer.params["average"][...] for block in model.blocks]
        np.testing.assert_allclose(found, averages[i], rtol=1e-4)
        np.testing.assert_allclose(found, means[i], rtol=0.02)
        # So rows sum to alpha's mean.
        ones = jnp.ones((1, T, H, 1))
        alpha = jnp.linspace(0, 1, T * H).reshape(1, T, H)
        rows = affine_attention(ones, ones, ones, alpha, found[0])
        np.testing.assert_allclose(rows, float(means[i][0]), rtol=0.02)


def test_optimizers_of_flax_leave_averages_alone():
    model = nnx.jit(
        lambda: Transformer(
            configured("affine_attention"),
            rngs=nnx.Rngs(0),
        )
    )()
    tokens = jax.vmap(sample)(jax.random.split(jax.random.key(0), BATCH))
    optimizer = nnx.Optimizer(model, optax.adamw(0.1, weight_decay=5.0), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            logits, _ = model(tokens, training=True)
            return cross_entropy(logits, tokens)

        before = alphas(model, tokens)
        optimizer.update(model, nnx.grad(loss)(model))
        return before

    expected = np.zeros(2)
    for _ in range(3):
        expected = 0.9 * expected + 0.1 * np.asarray(step(model, optimizer))
    found = [block.mixer.params["average"][...] for block in model.blocks]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_padding_does_not_count():
    mixer = Mixer("affine_attention", dim=M, heads=H, rngs=nnx.Rngs(0))
    real = jnp.arange(T) < jnp.array([[2], [4]])
    expected = np.clip(0.1 * X @ mixer.params["alpha"][...] + 0.5, 0, 1)[np.asarray(real)].mean()
    nnx.jit(lambda mixer: mixer(X, mask=real, training=True))(mixer)
    np.testing.assert_allclose(mixer.params["average"][...], 0.1 * expected, rtol=1e-6)
    routed = jattn.zoo.make("mixture_of_heads", dim=M, heads=H)
    params = routed.init(jax.random.key(0))
    assert routed.auxiliary is not None
    one = jax.jit(lambda x, mask=None: routed.auxiliary(params, x, mask=mask).losses["balance"])
    real = jnp.broadcast_to(jnp.arange(T) < 4, (2, T))
    np.testing.assert_allclose(one(X, real), one(X[:, :4]), rtol=1e-6)


def test_combinators_pass_on_what_their_mixers_say():
    affine = jattn.zoo.make("affine_attention", dim=M, heads=H, causal=True)
    params = affine.init(jax.random.key(0))
    expected = 0.1 * np.clip(0.1 * X @ params["alpha"] + 0.5, 0, 1).mean()
    plain = jattn.zoo.make("softmax_attention", dim=M, heads=H, causal=True)
    balanced = routed(affine, dim=M, heads=H)
    for pair, path, losses in (
        (gated(affine, dim=M, heads=H), "average", set()),
        (gated(affine, dim=M, heads=H, position="G5"), "average", set()),
        (short_convolution(affine), "average", set()),
        (balanced, "average", {"balance"}),
        (mixture({"a": plain, "b": balanced}, dim=M), "b/average", {"b/balance"}),
    ):
        mixer = Mixer(pair, rngs=nnx.Rngs(0))
        inner = mixer.params["b"] if "b/" in path else mixer.params
        inner["alpha"][...] = params["alpha"]
        _, found = mixer(X, training=True)
        assert set(found) == losses
        assert [v.shape for v in found.values()] == [()] * len(losses)
        assert isinstance(inner["average"], nnx.BatchStat)
        np.testing.assert_allclose(inner["average"][...], expected, rtol=1e-6)
        assert len(jax.tree.leaves(statistics(mixer))) == 1
    assert Mixer(plain, rngs=nnx.Rngs(0))(X, training=True)[1] == {}


@pytest.mark.parametrize("name", jattn.zoo.names(kind="mixer"))
def test_what_the_card_calls_statistics_is_updated(name):
    spec = jattn.zoo.info(name)
    pair = jattn.zoo.make(name, dim=8, heads=2, causal=not spec.bidirectional)
    assert pair.statistics == spec.statistics
    if pair.auxiliary is not None:
        x = jax.random.normal(jax.random.key(0), (2, 5, 8))
        params = pair.init(jax.random.key(1))
        found = jax.jit(pair.auxiliary)(params, x)
        assert tuple(found.statistics) == spec.statistics
        for path, value in found.statistics.items():
            assert value.shape == params[path].shape
            assert np.any(np.asarray(value - params[path]))
    else:
        assert not spec.statistics


def loads(model, params, tokens):
    """The share of tokens that each routed head gets, over an equal share, `[layers, heads]`."""
    module = model.module(params)
    x, found = module.embed(tokens) + module.places(jnp.arange(T)), []
    for block in module.blocks:
        here = block.mixer_norm(x)
        share = jax.nn.softmax(here @ block.mixer.params["router"][...])
        chosen = share >= jnp.sort(share)[..., -2:-1]  # two of seven
        found.append(7 / 2 * chosen.mean((0, 1)))
        x = block(x)
    return jnp.stack(found)


@pytest.mark.slow
def test_heads_share_the_load_when_their_balance_is_in_the_loss(tmp_path):
    """As the bake-off trains them: loads spread less than half as much as without."""
    options = ("mixture_of_heads", {"shared": 1, "chosen": 2})
    settings = configured(options, heads=8)
    model = decoder(settings)
    tokens = jax.vmap(sample)(jax.random.split(jax.random.key(9), 64))

    def with_balance(params, tokens):
        return training_loss(model, params, tokens, lambda y: cross_entropy(y, tokens))

    def without(params, tokens):
        return cross_entropy(model.module(params)(tokens), tokens)

    found = {}
    for loss in (with_balance, without):
        params = trained(tmp_path / loss.__name__, model, loss, 300, optax.adam(1e-2))
        measure = jax.jit(jax.vmap(lambda p: loads(model, p, tokens)))
        found[loss] = np.asarray(measure(params))
    spread = {loss: loads.std(-1).mean(-1) for loss, loads in found.items()}
    assert (spread[with_balance] < 0.5 * spread[without]).all()


def test_the_mean_over_layers_is_what_a_model_gives():
    layers = ("mixture_of_heads", "softmax_attention", "mixture_of_heads")
    settings = configured(layers, layers=3)
    model = Transformer(settings, rngs=nnx.Rngs(0))
    tokens = jax.vmap(sample)(jax.random.split(jax.random.key(0), 2))
    logits, losses = nnx.jit(lambda m: m(tokens, training=True))(model)
    np.testing.assert_array_equal(logits, nnx.jit(lambda m: m(tokens))(model))
    assert model.places is not None
    x, each = model.embed(tokens) + model.places(jnp.arange(T)), []
    for block in model.blocks:
        here = block.mixer_norm(x)
        if "router" in block.mixer.params:
            share = np.asarray(jax.nn.softmax(here @ block.mixer.params["router"][...]))
            share = share.reshape(2 * T, -1)
            load = np.zeros(share.shape[1])
            for row in share:
                load[np.argsort(-row, kind="stable")[:2]] += 1 / len(share)
            each.append(len(load) * (share.mean(0) * load).sum())
        x = block(x)
    assert len(each) == 2
    np.testing.assert_allclose(losses["balance"], np.mean(each), rtol=1e-5)


def test_images_too():
    settings = VisionTransformerConfig(
        classes=3, height=4, width=4, patch=2, dim=M, heads=H, mechanisms="affine_attention"
    )
    model = as_functions(lambda rngs: VisionTransformer(settings, rngs=rngs))
    module = model.module(jax.jit(model.init)(jax.random.key(0)))
    logits, losses = nnx.jit(lambda m: m(jnp.ones((2, 4, 4, 1)), training=True))(module)
    assert (logits.shape, losses) == ((2, 3), {})
    moved = [leaf for leaf in model.statistics(module) if leaf is not None]
    assert len(moved) == 2
    assert all(0.02 < float(leaf) < 0.08 for leaf in moved)


@pytest.mark.slow
def test_a_mixture_of_heads_is_as_good_as_all_heads_and_a_dense_model_goes_on_as_one():
    """Copying with three quarters of the heads: trained so from the start, and tuned to it."""
    length, steps = 17, 800
    draw = copying(16, length)

    def made(mechanism):
        sizes: dict[str, Any] = dict(dim=32, heads=8, layers=2, mlp_ratio=2.0, max_length=length)
        return decoder(TransformerConfig(vocab_size=16, mechanisms=mechanism, **sizes))

    def batch(key, size):
        return jax.vmap(draw)(jax.random.split(key, size))

    def trained_on(model, params, steps, seed):
        optimizer = optax.adam(3e-3)

        def step(carry, key):
            params, state = carry
            tokens, copied = batch(key, 32)

            def loss(params):
                nats = lambda logits: copying_loss(logits, tokens[:, 1:], copied[:, 1:])
                return training_loss(model, params, tokens[:, :-1], nats)[0]

            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(seed), steps)
        run = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), keys)[0][0])
        return run(params)

    def nats(model, params):
        tokens, copied = batch(jax.random.key(99), 256)
        logits = jax.jit(lambda p: model.module(p)(tokens[:, :-1]))(params)
        return float(copying_loss(logits, tokens[:, 1:], copied[:, 1:]))

    dense = made("softmax_attention")
    routed = made(("mixture_of_heads", {"shared": 2, "chosen": 4}))
    by_length = made(("mixture_of_heads", {"shared": 4, "chosen": 2, "router": "query_norm"}))
    start = dense.init(jax.random.key(0))
    taught = trained_on(dense, start, steps, seed=1)
    mixture = trained_on(routed, routed.init(jax.random.key(0)), steps, seed=1)
    assert nats(routed, mixture) <= nats(dense, taught) + 0.02
    # The dense model's parameters are those of a mixture that asks how long its queries are.
    switched = nats(by_length, taught)
    tuned = nats(by_length, trained_on(by_length, taught, steps // 4, seed=2))
    assert tuned < 0.1 * switched
    assert tuned <= nats(dense, taught) + 1e-3
