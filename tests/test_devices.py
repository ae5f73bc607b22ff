"""Engines, layers and models on arrays that are spread over devices: the numbers of one device.

No code of the user's: plain `jit`, whatever the axes of the mesh are and whatever is divided.
"""

import contextlib
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jattn
from jattn import masks, nn
from jattn.attention import explain
from tests import tpu_compile

B, T, H, G, D = 4, 16, 4, 2, 8
rng = np.random.default_rng(0)
normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
QUERY, KEY, VALUE = normal(B, T, H, D), normal(B, T, G, D), normal(B, T, G, D)
UNIT_KEY = KEY / np.linalg.norm(KEY, axis=-1, keepdims=True)
BIAS, SINK, TABLE = normal(B, H, 1, T), normal(H), normal(B, H)
REAL = rng.random((B, T)) > 0.2
DOCUMENTS = np.sort(rng.integers(0, 3, (B, T)), 1)
DECAY, BETA = -np.abs(normal(B, T, H)), rng.random((B, T, H), np.float32)
STATE, LENGTHS = normal(B, H, D, D), np.array([3, 16, 0, 9])


def causal(implementation, q, k, v):
    return jattn.attend(q, k, v, mask=masks.causal(), implementation=implementation)


def part(array, q, batch: int | None = 0, heads: int | None = None):
    """A whole array's share that goes with a share of the queries, inside `shard_map`."""
    array = jnp.asarray(array)
    for axis, here, name in ((batch, q.shape[0], "data"), (heads, q.shape[-2], "model")):
        if axis is not None and array.shape[axis] > here:
            first = jax.lax.axis_index(name) * here
            array = jax.lax.dynamic_slice_in_dim(array, first, here, axis)
    return array


def window_sink_bias(implementation, q, k, v):
    mask = masks.sliding_window(5, 0) & masks.padding(part(REAL, q))
    out, lse = jattn.attend(
        q, k, v, mask=mask, bias=part(BIAS, q, 0, 1), sink=part(SINK, q, None, 0), return_lse=True,
        implementation=implementation,
    )  # fmt: skip
    return out, jnp.where(jnp.isfinite(lse), lse, 0)


def score_mod(implementation, q, k, v):
    """A modification and a mask that know which batch entry and which head they are at."""
    table = part(TABLE, q, 0, 1)
    modify = lambda score, b, h, i, j: score + table[b, h] * (i - j)
    mask = masks.segments(part(DOCUMENTS, q))
    return jattn.attend(
        q, k, v, mask=mask, score_mod=modify, implementation=implementation
    )  # fmt: skip


def function_mask(implementation, q, k, v):
    mask = lambda b, h, i, j: (i >= j) & (j >= b) & (j >= h)
    return jattn.attend(q, k, v, mask=mask, implementation=implementation)


def dropout(implementation, q, k, v):
    return jattn.attend(
        q, k, v, mask=masks.causal(), dropout_rate=0.3, dropout_key=jax.random.key(3),
        implementation=implementation,
    )  # fmt: skip


def recur_decay(implementation, q, k, v):
    return jattn.recur(
        q, k, v, decay=part(DECAY, q, 0, 2), chunk_size=8, implementation=implementation
    )


def recur_delta(implementation, q, k, v):
    return jattn.recur(
        q, k, v, decay=part(DECAY, q, 0, 2), beta=part(BETA, q, 0, 2), return_state=True,
        initial_state=part(STATE, q, 0, 1), chunk_size=8, implementation=implementation,
    )  # fmt: skip


def decode(implementation, q, k, v):
    q = q.sum(1)
    options: dict[str, Any] = {"window": 4, "sink": part(SINK, q, None, 0)}
    if implementation is None:
        table = part(TABLE, q, 0, 1)
        options["bias"] = part(BIAS[:, :, 0], q, 0, 1)
        options["score_mod"] = lambda score, b, h, i, j: score + table[b, h] * (i - j)
    return jattn.decode(q, k, v, part(LENGTHS, q), implementation=implementation, **options)


ENGINES = (causal, window_sink_bias, score_mod, function_mask, dropout)
ENGINES += (recur_decay, recur_delta, decode)
SPECS = {
    "batch": P("data"),
    "heads": P(None, None, "model"),
    "both": P("data", None, "model"),
    "sequence": P(None, "data"),
    "nothing": P(),
}
KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
# A few in every run; the whole matrix among the slow tests.
CHOSEN = {
    ("explicit", "window_sink_bias", None, "both"),
    ("explicit", "window_sink_bias", None, "sequence"),
    ("explicit", "score_mod", None, "both"),
    ("explicit", "recur_delta", None, "both"),
    ("explicit", "decode", None, "both"),
    ("auto", "score_mod", "pallas", "both"),
    ("auto", "recur_delta", "pallas", "batch"),
}


def matrix():
    for kind in KINDS:
        for engine in ENGINES:
            for implementation in (None, "pallas"):
                for spec in SPECS:
                    case = (kind, engine.__name__, implementation, spec)
                    marks = () if case in CHOSEN else pytest.mark.slow
                    yield pytest.param(
                        kind, engine, implementation, spec, marks=marks,
                        id="-".join(map(str, case)),
                    )  # fmt: skip


@functools.cache
def on_one_device(engine, implementation):
    arrays = (QUERY, UNIT_KEY if engine is recur_delta else KEY, VALUE)
    return arrays, evaluated(engine, implementation, arrays)


def evaluated(engine, implementation, arrays):
    """Results, and gradients of all three arrays where there are any."""
    run = functools.partial(engine, implementation)
    if engine is decode and implementation == "pallas":
        return jax.jit(run)(*arrays), ()

    def loss(*arrays):
        out = run(*arrays)
        return sum((x.astype(jnp.float32) ** 3).sum() for x in jax.tree.leaves(out)), out

    (_, out), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*arrays)
    return out, gradients


def close(found, expected):
    for b in jax.tree.leaves(expected):
        assert np.abs(np.asarray(b)).max() > 0
    close_somewhere(found, expected)


def close_somewhere(found, expected):
    """As `close`, where some parameters may have no gradient."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        largest = np.abs(np.asarray(b)).max()
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * max(1, largest))


@pytest.mark.parametrize("in_use", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "engine", "implementation", "spec"), list(matrix()))
def test_engines(kind, engine, implementation, spec, in_use):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(KINDS[kind],) * 2)
    arrays, expected = on_one_device(engine, implementation)
    spread = [jax.device_put(x, NamedSharding(mesh, SPECS[spec])) for x in arrays]
    with jax.set_mesh(mesh) if in_use else contextlib.nullcontext():
        found = evaluated(engine, implementation, spread)
    close(found, expected)
    if kind == "explicit" and engine in (causal, recur_decay):
        assert jax.typeof(found[0]).sharding.spec[:3] == (*SPECS[spec], None, None, None)[:3]


# Inside `shard_map` a mask or a modification that is told its batch entry and head is told which of
# those that are here, and dropout draws for those that are here: as the caller means it.
MANUAL_ENGINES = (causal, window_sink_bias, score_mod, recur_decay, recur_delta, decode)
MANUAL = {
    "manual": (("data", "model"), AxisType.Auto),
    "manual beside auto": (("data",), AxisType.Auto),
    "manual beside explicit": (("data",), AxisType.Explicit),
}
CHOSEN_MANUAL = {
    ("manual", "window_sink_bias", "pallas", "both"),
    ("manual beside auto", "recur_delta", "pallas", "both"),
    ("manual beside explicit", "score_mod", None, "both"),
    ("manual", "recur_decay", None, "sequence"),
}


def manual_matrix():
    for kind in MANUAL:
        for engine in MANUAL_ENGINES:
            for implementation in (None, "pallas"):
                for spec in ("batch", "heads", "both", "sequence"):
                    case = (kind, engine.__name__, implementation, spec)
                    marks = () if case in CHOSEN_MANUAL else pytest.mark.slow
                    yield pytest.param(
                        kind, engine, implementation, spec, marks=marks,
                        id="-".join(map(str, case)),
                    )  # fmt: skip


@pytest.mark.parametrize(("kind", "engine", "implementation", "spec"), list(manual_matrix()))
def test_engines_inside_shard_map(kind, engine, implementation, spec):
    names, other = MANUAL[kind]
    types = tuple(AxisType.Auto if axis in names else other for axis in ("data", "model"))
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=types)
    arrays, expected = on_one_device(engine, implementation)
    spread = [jax.device_put(x, NamedSharding(mesh, SPECS[spec])) for x in arrays]

    def only(*axes):
        kept = (a if a in names else None for a in axes)
        return P(*kept)

    given = only(*SPECS[spec])
    batch, tokens, heads = (*given, None, None, None)[:3]
    results = {recur_delta: (given, P(batch, heads)), decode: P(batch, heads)}

    def run(implementation, *arrays):
        if tokens is None:
            return engine(implementation, *arrays)
        # Whoever divides a sequence by hand gathers it by hand, or calls `ring_attend`.
        whole = [jax.lax.all_gather(x, tokens, axis=1, tiled=True) for x in arrays]
        out = engine(implementation, *whole)
        if engine is decode:
            return out
        first = jax.lax.axis_index(tokens) * arrays[0].shape[1]
        own = lambda x: jax.lax.dynamic_slice_in_dim(x, first, arrays[0].shape[1], 1)
        if engine is recur_delta:
            return own(out[0]), out[1]
        return jax.tree.map(own, out)

    def divided(implementation, *arrays):
        return jax.shard_map(
            functools.partial(run, implementation), mesh=mesh, in_specs=(given,) * 3,
            out_specs=results.get(engine, given), axis_names=set(names), check_vma=False,
        )(*arrays)  # fmt: skip

    is_decode = engine is decode and implementation == "pallas"
    if is_decode:
        close(jax.jit(functools.partial(divided, implementation))(*spread), expected[0])
    else:
        close(evaluated(divided, implementation, spread), expected)


@pytest.mark.parametrize("implementation", [None, "pallas"])
def test_engines_inside_pmap(implementation):
    arrays, (expected, _) = on_one_device(causal, implementation)
    parts = [x.reshape(4, 1, *x.shape[1:]) for x in arrays]
    found = jax.pmap(functools.partial(causal, implementation))(*parts)
    close(np.asarray(found).reshape(np.shape(expected)), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_nested_in_scan_remat_vmap_and_gradients(kind):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(KINDS[kind],) * 2)

    def layers(q, k, v):
        attend = jax.checkpoint(functools.partial(causal, "pallas"))
        twice = lambda q: jax.lax.scan(lambda q, _: (attend(q, k, v), None), q, None, length=2)[0]
        return (jax.vmap(twice)(jnp.stack([q, 2 * q])) ** 2).sum()

    run = jax.jit(jax.value_and_grad(layers, (0, 1, 2)))
    arrays = (QUERY, KEY, VALUE)
    spread = [jax.device_put(x, NamedSharding(mesh, SPECS["both"])) for x in arrays]
    close(run(*spread), run(*arrays))


# Of those that need more than the engines, some in every run; the others are slow.
CHOSEN_MECHANISMS = ("agent_attention", "hierarchical_attention", "titans_memory")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in CHOSEN_MECHANISMS else pytest.mark.slow)
        for name in jattn.zoo.names(kind="mixer")
    ],
)
def test_every_mixer(kind, name):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(KINDS[kind],) * 2)
    mixer = jattn.zoo.make(name, dim=16, heads=2, causal=jattn.zoo.info(name).causal)
    params = jax.jit(mixer.init)(jax.random.key(0))
    x = normal(B, T, 16)

    @jax.jit
    def run(params, x):
        def loss(params):
            y = mixer.apply(params, x)
            return (y**2).sum(), y

        return jax.grad(loss, has_aux=True)(params)

    whole = jax.device_put(params, NamedSharding(mesh, P()))
    close_somewhere(run(whole, jax.device_put(x, NamedSharding(mesh, P("data")))), run(params, x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["softmax_attention", "gated_delta_rule"])
@pytest.mark.parametrize("spec", [P("data"), P(None, "data")], ids=str)
def test_layers(kind, name, spec):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(KINDS[kind],) * 2)
    mixer = jattn.zoo.make(name, dim=16, heads=2, causal=True)
    params = jax.jit(mixer.init)(jax.random.key(0))
    x = normal(B, T, 16)

    @jax.jit
    def run(params, x):
        loss = lambda params: (mixer.apply(params, x) ** 2).sum()
        return jax.value_and_grad(loss)(params)

    expected = run(params, x)
    whole = jax.device_put(params, NamedSharding(mesh, P()))
    close(run(whole, jax.device_put(x, NamedSharding(mesh, spec))), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_its_loss(kind):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(KINDS[kind],) * 2)
    config = nn.TransformerConfig(vocab_size=17, dim=16, heads=2, layers=1)
    graph, state = nnx.split(nn.Transformer(config, rngs=nnx.Rngs(0)))
    tokens, targets = rng.integers(0, 17, (2, B, T))

    @jax.jit
    def run(state, tokens, targets):
        def loss(state):
            logits = nnx.merge(graph, state)(tokens)
            # That of integer labels does not say how its look-up is spread, as jax 0.12 wants it.
            return optax.softmax_cross_entropy(logits, jax.nn.one_hot(targets, 17)).mean()

        return jax.value_and_grad(loss)(state)

    expected = run(state, tokens, targets)
    whole = jax.device_put(state, NamedSharding(mesh, P()))
    spread = [jax.device_put(x, NamedSharding(mesh, P("data"))) for x in (tokens, targets)]
    close(run(whole, *spread), expected)


def test_heads_that_do_not_divide_are_gathered():
    """Two heads of keys over four devices, one over any."""
    mesh = jax.make_mesh((4,), ("model",), axis_types=(AxisType.Explicit,))
    for groups in (2, 1):
        arrays = (QUERY, KEY[:, :, :groups], VALUE[:, :, :groups])
        expected = jax.jit(functools.partial(causal, None))(*arrays)
        spread = [jax.device_put(x, NamedSharding(mesh, P())) for x in arrays]
        spread[0] = jax.device_put(QUERY, NamedSharding(mesh, P(None, None, "model")))
        close(jax.jit(functools.partial(causal, None))(*spread), expected)


def test_explain_says_how_arrays_are_spread_and_what_is_gathered():
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    put = lambda spec: [jax.device_put(x, NamedSharding(mesh, spec)) for x in (QUERY, KEY, VALUE)]
    said = str(explain(*put(P("data", None, "model"))))
    assert "spread: batch over data, heads over model" in said
    assert "ring_attend" not in said
    said = str(explain(*put(P(None, "data"))))
    assert "spread: batch whole, heads whole" in said
    assert "gathered over data, model: sequences that are spread are cheaper in jattn" in said
    assert "spread" not in str(explain(*map(jnp.asarray, (QUERY, KEY, VALUE))))


def test_a_mesh_of_automatic_axes_is_gone_by_the_names_of_its_axes():
    mesh = jax.make_mesh((2, 2, 2), ("sequence", "data", "tensor"), axis_types=(AxisType.Auto,) * 3)
    arrays = [jax.device_put(x, NamedSharding(mesh, P("data"))) for x in (QUERY, KEY, VALUE)]
    layout = explain(*arrays, implementation="pallas").layout
    assert layout is not None
    assert (layout.batch, layout.heads) == (("data",), ("tensor",))
    assert explain(*arrays).layout is None  # XLA divides what is no kernel.


@pytest.mark.kernels
@pytest.mark.libtpu
def test_a_training_step_under_plain_jit_holds_the_kernels_and_gathers_no_tokens():
    """Compiled for sixteen chips: forward and backward kernel, batch over 8 and heads over 2."""
    script = """
import optax, re
from flax import nnx
from jattn import nn
mesh = mesh_of("v5e:4x4", (8, 2), ("data", "model"))
config = nn.TransformerConfig(vocab_size=64, dim=256, heads=4, layers=1)
graph, state = nnx.split(nnx.eval_shape(lambda: nn.Transformer(config, rngs=nnx.Rngs(0))))

def step(state, tokens, targets):
    def loss(state):
        logits = nnx.merge(graph, state)(tokens)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
    return jax.tree.map(lambda p, g: p - 0.1 * g, state, jax.grad(loss)(state))

def spread(x):
    # As fit does along a model axis: by the heads, which the projections' columns belong to.
    spec = {(256, 256): P(None, "model"), (256, 1024): P(None, "model")}.get(x.shape, P())
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

tokens = jax.ShapeDtypeStruct((8, 1024), jnp.int32, sharding=NamedSharding(mesh, P("data")))
text = jax.jit(step).lower(jax.tree.map(spread, state), tokens, tokens).compile().as_text()
gathered = re.findall(r"= (\\S+) all-gather(?:-start)?\\(", text)
report(kernels=text.count('custom_call_target="tpu_custom_call"'), gathered=gathered)
"""
    (found,) = tpu_compile.run(script)
    assert found["kernels"] >= 2
    # Queries, keys and values of a device are [1, 1024, 2, 64], of all heads [1, 1024, 4, 64], of
    # all batch entries [8, 1024, 2, 64].
    heads = re.compile(r"\[(1|8),(1024,[24],64|[24],1024,64|[24],64,1024)\]")
    assert not [shape for shape in found["gathered"] if heads.search(shape)], found
