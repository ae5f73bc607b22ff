"""Every backend of `attend` against a float64 oracle: values and all gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn import attend, masks
from jattn.attention import Normalizer, attend_columns, explain, given_lse, merge, scores
from jattn.attention.blocks import Blocks


def draw(b, t, s, h, gk, gv, d, e, **shapes):
    shapes = {"query": (b, t, h, d), "key": (b, s, gk, d), "value": (b, s, gv, e), **shapes}
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return {n: jax.random.normal(k, x) for k, (n, x) in zip(keys, shapes.items(), strict=True)}


def call(arrays, cap=None, **options):
    """`attend` on a dict of arrays, as the oracle takes them."""
    mods = []
    if "table" in arrays:
        mods.append(scores.relative_bias(arrays["table"]))
    if cap is not None:
        mods.append(scores.soft_cap(cap))
    for name in ("bias", "sink"):
        if name in arrays:
            options[name] = arrays[name]
    if mods:
        options["score_mod"] = scores.chain(*mods)
    return attend(arrays["query"], arrays["key"], arrays["value"], **options)


def weighed(out, lse, d_out, d_lse):
    return (out * d_out).sum() + jnp.where(jnp.isfinite(lse), lse * d_lse, 0).sum()


def assert_close(got, wanted, tolerance, name):
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert np.isfinite(got).all(), name
    error, scale = np.abs(got - wanted).max(), max(1.0, np.abs(wanted).max())
    assert error <= tolerance * scale, f"{name}: error {error:.2e} at scale {scale:.2e}"


def random_mask(t, s):
    mask = np.random.default_rng(0).random((2, 1, t, s)) < 0.3
    mask[0, 0, t // 2] = False  # A row without any key.
    return mask


# sizes: b, t, s, h, gk, gv, d, e
CASES = {
    "one_token": ((2, 1, 1, 3, 1, 3, 8, 5), {}, {}),
    "short_window_sink": (
        (1, 7, 7, 6, 2, 2, 16, 16),
        {"sink": (6,)},
        {"mask": masks.causal() & masks.sliding_window(3)},
    ),
    "causal_grouped": ((2, 129, 129, 6, 2, 3, 16, 12), {}, {"mask": masks.causal()}),
    "offset_bias_sink": (  # Rows before 10 see no key.
        (1, 200, 131, 6, 2, 6, 16, 8),
        {"bias": (6, 1, 131), "sink": (1, 200, 6)},
        {"mask": masks.causal(-10)},
    ),
    "array_mask_table_cap": (
        (2, 129, 200, 2, 1, 2, 16, 8),
        {"bias": (2, 1, 129, 1), "table": (2, 9), "sink": (2,)},
        {"mask": random_mask(129, 200), "cap": 3.0, "scale": 0.7},
    ),
    "full_bias": ((2, 70, 140, 2, 2, 1, 8, 8), {"bias": (1, 2, 70, 140)}, {}),
    "softplus_sink": (
        (1, 129, 129, 2, 1, 1, 8, 8),
        {"sink": (2,)},
        {"mask": masks.sliding_window(20, 10), "normalizer": "softplus_l1"},
    ),
    "relu": (
        (1, 129, 200, 2, 2, 2, 8, 8),
        {"bias": (1, 200)},
        {"mask": ~masks.block_diagonal(50), "normalizer": "relu"},
    ),
    "sigmoid": (
        (1, 7, 200, 2, 1, 1, 8, 8),
        {"bias": ()},
        {"mask": masks.prefix(150), "normalizer": "sigmoid"},
    ),
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, implementation, oracle):
    sizes, extra, options = CASES[name]
    if isinstance(implementation, Blocks):  # Kernels look nothing up.
        extra = {name: shape for name, shape in extra.items() if name != "table"}
    b, t, s, h, *_, e = sizes
    arrays = draw(*sizes, **extra)
    cotangents = draw(b, t, s, h, 1, 1, 1, 1, out=(b, t, h, e), lse=(b, t, h))
    d_out, d_lse = cotangents["out"], cotangents["lse"]
    divides = options.get("normalizer") != "sigmoid"
    mask = options.get("mask")
    allowed = True
    if mask is not None:
        allowed = np.asarray(mask.dense(t, s) if isinstance(mask, masks.Mask) else mask)
        options = {**options, "mask": mask if isinstance(mask, masks.Mask) else jnp.asarray(mask)}

    def loss(arrays):
        out = call(arrays, **options, return_lse=divides, implementation=implementation)
        out, lse = out if divides else (out, jnp.zeros((b, t, h)))
        return weighed(out, lse, d_out, d_lse), (out, lse)

    (_, (out, lse)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(arrays)
    keep = {k: v for k, v in options.items() if k in ("normalizer", "cap", "scale")}
    d_lse = d_lse if divides else None
    want, want_lse, want_grads = oracle(arrays, d_out, d_lse, allowed=allowed, **keep)
    assert_close(out, want, 2e-6, "out")
    if divides:
        assert lse.dtype == jnp.float32
        empty = np.isneginf(want_lse)
        np.testing.assert_array_equal(np.isneginf(lse), empty)
        assert_close(np.where(empty, 0, lse), np.where(empty, 0, want_lse), 2e-6, "lse")
    assert grads.keys() == want_grads.keys()
    for name in grads:
        assert_close(grads[name], want_grads[name], 1e-5, f"gradient of {name}")


def test_given_lse_and_its_gradient(implementation, oracle):
    arrays = draw(1, 129, 100, 4, 2, 2, 8, 8, lse=(1, 129, 4), out=(1, 129, 4, 8))
    d_out = arrays.pop("out")

    def loss(arrays):
        rule = given_lse(arrays["lse"])
        return (call(arrays, normalizer=rule, implementation=implementation) * d_out).sum()

    value, grads = jax.jit(jax.value_and_grad(loss))(arrays)
    shift = np.asarray(arrays.pop("lse")).transpose(0, 2, 1)[..., None]
    out, _, want = oracle({**arrays, "shift": shift}, d_out, normalizer="exp")
    assert_close(value, (out * d_out).sum(), 1e-5, "value")
    want["lse"] = want.pop("shift")[..., 0].transpose(0, 2, 1)
    for name in want:
        assert_close(grads[name], want[name], 1e-5, name)


def test_columns_are_the_transposed_weights(implementation, oracle):
    b, t, s, h = 1, 130, 100, 4
    arrays = draw(b, t, s, h, 2, 2, 8, 8, content=(b, t, 2, 5), bias=(1, h, 1, s))
    mask, mod = masks.causal(-3), scores.relative_bias(jnp.linspace(-1, 1, h * 9).reshape(h, 9))
    if isinstance(implementation, Blocks):
        mod = scores.alibi(h)
    q, k, v, content, bias = (arrays[n] for n in ("query", "key", "value", "content", "bias"))
    same = {"mask": mask, "score_mod": mod}
    _, lse, weights = attend(q, k, v, bias=bias, **same, return_lse=True, return_weights=True)

    def columns(q, k, content, bias, lse):
        return attend_columns(q, k, content, lse, bias=bias, **same, implementation=implementation)

    def dense(q, k, content, bias, lse):
        rule = given_lse(lse)
        weights = attend(q, k, v, bias=bias, **same, normalizer=rule, return_weights=True)[1]
        return jnp.einsum("bhts,bthe->bshe", weights, jnp.repeat(content, 2, axis=2))

    args = (q, k, content, bias, lse)
    out, pull = jax.vjp(jax.jit(columns), *args)
    want = np.einsum("bhts,bthe->bshe", weights, np.repeat(content, 2, axis=2))
    assert_close(out, want, 2e-6, "columns")
    cotangent = jax.random.normal(jax.random.key(3), out.shape)
    for got, wanted in zip(pull(cotangent), jax.vjp(dense, *args)[1](cotangent), strict=True):
        assert_close(got, wanted, 1e-5, "gradient")


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_bad_numbers_behind_the_mask_stay_there(implementation, bad):
    arrays = draw(1, 130, 130, 2, 1, 2, 8, 8)
    mask = masks.causal() & masks.prefix(90)
    options = {"mask": mask, "sink": 0.0, "implementation": implementation}
    poisoned = {n: x if n == "query" else x.at[:, 100:].set(bad) for n, x in arrays.items()}

    def loss(arrays):
        out = call(arrays, **options)
        return (out**2).sum(), out

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, out), grads = run(arrays)
    (_, out_bad), grads_bad = run(poisoned)
    np.testing.assert_array_equal(out, out_bad)
    jax.tree.map(np.testing.assert_array_equal, grads, grads_bad)
    # One that is attended to does show, in the rows that attend to it and no other.
    arrays["key"] = arrays["key"].at[0, 70, 0, 0].set(bad)
    (_, out), _ = run(arrays)
    rows = np.isnan(out).any((0, 2, 3))
    if isinstance(implementation, Blocks) and bad == jnp.inf:
        # The kernel takes a score of minus infinity for what it is: no weight.
        assert rows[70:].any()
        assert not rows[:70].any()
    else:
        np.testing.assert_array_equal(rows, np.arange(130) >= 70)


def test_empty_rows_give_zeros_and_no_gradient(implementation):
    arrays = draw(1, 70, 70, 2, 2, 2, 8, 8)

    def loss(arrays):
        out, lse = call(
            arrays, mask=jnp.zeros((70, 70), bool), return_lse=True, implementation=implementation
        )
        return out.sum() + jnp.where(jnp.isfinite(lse), lse, 0).sum(), (out, lse)

    (_, (out, lse)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(arrays)
    assert (out == 0).all()
    assert (lse == -jnp.inf).all()
    assert all((g == 0).all() for g in grads.values())


def test_half_precision(implementation, oracle):
    sizes = (1, 200, 200, 6, 2, 2, 32, 32)
    arrays = {n: x.astype(jnp.bfloat16) for n, x in draw(*sizes).items()}
    d_out = draw(*sizes)["query"].astype(jnp.bfloat16)

    def both(run):
        out, pull = jax.vjp(run, arrays)
        return out, pull(d_out)[0]

    mine = lambda a: call(a, mask=masks.causal(), implementation=implementation)

    def theirs(a):
        return jax.nn.dot_product_attention(a["query"], a["key"], a["value"], is_causal=True)

    want, _, want_grads = oracle(arrays, d_out, allowed=np.tri(200, dtype=bool))

    def error(got, wanted):
        got = np.asarray(got, np.float64)
        return np.sqrt(((got - wanted) ** 2).mean() / (wanted**2).mean())

    run = jax.jit(both, static_argnums=0)
    (out, grads), (out_dense, grads_dense) = run(mine), run(theirs)
    assert out.dtype == jnp.bfloat16
    assert error(out, want) <= min(4e-3, 2 * error(out_dense, want))
    for name, wanted in want_grads.items():
        assert grads[name].dtype == jnp.bfloat16
        assert error(grads[name], wanted) <= min(8e-3, 2 * error(grads_dense[name], wanted))


@pytest.mark.usefixtures("x64")
def test_double_precision(implementation, oracle):
    if isinstance(implementation, Blocks):
        pytest.skip("a TPU has no float64")
    arrays = draw(1, 70, 70, 2, 1, 1, 8, 8, bias=(70, 1), sink=(2,))
    assert arrays["query"].dtype == jnp.float64
    d_out = jnp.ones((1, 70, 2, 8))

    def loss(arrays):
        out, lse = call(arrays, mask=masks.causal(), return_lse=True, implementation=implementation)
        return (out * d_out).sum(), lse

    (value, lse), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(arrays)
    want, _, want_grads = oracle(arrays, d_out, allowed=np.tri(70, dtype=bool))
    assert lse.dtype == jnp.float64
    assert_close(value, want.sum(), 1e-12, "value")
    for name in grads:
        assert_close(grads[name], want_grads[name], 1e-12, name)


def test_eager_equals_jit_and_vmap_equals_loop(implementation):
    arrays = draw(2, 100, 100, 2, 1, 1, 8, 8, ids=(2, 100))
    ids = jnp.cumsum(arrays.pop("ids") > 1.5, axis=1)

    def run(arrays, ids):
        options = {"mask": masks.segments(ids) & masks.causal(), "implementation": implementation}
        return jax.value_and_grad(lambda a: (call(a, **options) ** 2).sum())(arrays)

    eager, jitted = run(arrays, ids), jax.jit(run)(arrays, ids)
    jax.tree.map(lambda x, y: assert_close(x, y, 2e-6, "jit"), eager, jitted)
    single = jax.tree.map(lambda x: x[:, None], (arrays, ids))
    values, grads = jax.jit(jax.vmap(run))(*single)
    assert_close(values.sum(), eager[0], 1e-5, "vmap")
    jax.tree.map(lambda x, y: assert_close(x[:, 0], y, 1e-5, "vmap"), grads, eager[1])


def test_learned_scale_and_temperature_have_gradients(implementation):
    x = draw(1, 70, 70, 2, 2, 2, 8, 8)["query"]

    def loss(scale, tau):
        mod = scores.temperature(tau)
        out = attend(x, x, x, scale=scale, score_mod=mod, implementation=implementation)
        return (out**2).sum()

    d_scale, d_tau = jax.grad(loss, (0, 1))(jnp.array(0.5), jnp.array([1.0, 2.0]))
    # Scores are scale * <q, k> / tau, so d/d log(scale) = - sum over heads of d/d log(tau).
    assert abs(float(d_scale)) > 1
    np.testing.assert_allclose(d_scale * 0.5, -(d_tau * jnp.array([1.0, 2.0])).sum(), rtol=1e-4)


def test_a_normalizer_of_ones_own(implementation):
    rule = Normalizer("square", jnp.square, divide=True)
    x = draw(1, 70, 70, 2, 2, 2, 8, 8)["query"]
    out = attend(x, x, x, normalizer=rule, mask=masks.causal(), implementation=implementation)
    score = np.einsum("bthd,bshd->bhts", x, x, dtype=np.float64) / np.sqrt(8)
    weight = np.where(np.tri(70, dtype=bool), score**2, 0)
    want = np.einsum("bhts,bshd->bthd", weight / weight.sum(-1, keepdims=True), x)
    assert_close(out, want, 2e-6, "square")


def test_weights_sum_to_one_less_the_sink():
    x = draw(1, 9, 9, 2, 2, 2, 8, 8)["query"]
    out, lse, weights = attend(x, x, x, sink=0.5, return_lse=True, return_weights=True)
    np.testing.assert_allclose(
        weights.sum(-1), 1 - jnp.exp(0.5 - jnp.swapaxes(lse, 1, 2)), rtol=1e-5
    )
    np.testing.assert_allclose(jnp.einsum("bhts,bshe->bthe", weights, x), out, atol=1e-6)


@pytest.mark.parametrize("name", ["reference", "blockwise"])
def test_forward_mode_and_second_order(x64, name):
    """Of all that has a gradient, against differences in float64; reverse over reverse too."""
    drawn = draw(1, 70, 70, 2, 2, 1, 4, 4)
    point = {n: jnp.asarray(drawn[n], jnp.float64) for n in ("query", "key", "value")}
    bias = np.random.default_rng(0).standard_normal((1, 1, 70))
    point |= {"bias": jnp.asarray(bias), "sink": jnp.array([0.3, -0.2]), "cap": jnp.asarray(3.0)}

    def run(p):
        out, lse = attend(
            p["query"], p["key"], p["value"], bias=p["bias"], sink=p["sink"],
            score_mod=lambda s, *_: p["cap"] * jnp.tanh(s / p["cap"]), mask=masks.causal(-1),
            return_lse=True, implementation=name,
        )  # fmt: skip
        return (out**2).sum() + jnp.where(lse > -jnp.inf, lse, 0).sum()

    @jax.jit
    def differentiate(point, direction):
        dot = lambda p: sum(jnp.vdot(p[n], direction[n]) for n in p)
        forward = jax.jvp(run, (point,), (direction,))[1]
        gradient, second = jax.jvp(jax.grad(run), (point,), (direction,))
        return forward, gradient, second, jax.grad(lambda p: dot(jax.grad(run)(p)))(point)

    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape)), point)
    forward, gradient, second, reverse = differentiate(point, direction)
    slope = sum(float(jnp.vdot(gradient[n], direction[n])) for n in point)
    np.testing.assert_allclose(forward, slope, rtol=1e-9)
    step = 1e-5
    moved = [jax.tree.map(lambda x, d, s=s: x + s * d, point, direction) for s in (step, -step)]
    ahead, behind = (differentiate(p, direction)[1] for p in moved)
    for n in point:
        want = (np.asarray(ahead[n]) - np.asarray(behind[n])) / (2 * step)
        np.testing.assert_allclose(second[n], want, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(reverse[n], want, rtol=1e-6, atol=1e-7)


def test_derivatives_of_blocks_under_vmap_checkpoint_and_jacobians():
    x = (
        jnp.stack([draw(1, 70, 70, 2, 2, 2, 4, 4)["query"]] * 2)
        * jnp.array([1, -0.5])[:, None, None, None, None]
    )

    def loss(name, x):
        return (attend(x, x, x[..., :2], mask=masks.causal(), implementation=name) ** 2).sum()

    for derivative in (
        lambda f: jax.vmap(jax.grad(f)),
        lambda f: jax.grad(lambda x: jax.vmap(f)(x).sum()),
        lambda f: jax.vmap(jax.grad(jax.checkpoint(f))),
        lambda f: jax.vmap(lambda x: jax.jvp(f, (x,), (x + 1,))[1]),
        lambda f: jax.vmap(lambda x: jax.jvp(jax.grad(f), (x,), (x + 1,))[1]),
        lambda f: lambda x: jax.jacfwd(lambda s: jax.vmap(f)(s * x))(jnp.float32(1.5)),
    ):
        a, b = (
            jax.jit(derivative(functools.partial(loss, name)))(x)
            for name in ("reference", "blockwise")
        )
        assert_close(b, a, 2e-5, "derivative")


@pytest.mark.usefixtures("plain_checks")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": (2, 9, 3, 8)}, "key: expected heads that divide query's 4, got 3"),
        ({"key": (1, 9, 2, 8)}, r"key: expected shape \[b=2, s=9, gk=2, d=8\], got \[1, 9, 2, 8\]"),
        ({"value": (2, 8, 2, 8)}, r"value: expected shape \[b=2, s=9, gv=2, e=8\], got"),
        ({"query": (7, 4, 8)}, r"query: expected 4 axes \[b, t, h, d\], got shape \[7, 4, 8\]"),
        ({"bias": (7, 8)}, r"bias: expected a shape broadcastable to .* got \[7, 8\]"),
        ({"sink": (3,)}, r"sink: expected shape \[h=4\], got \[3\]"),
        ({"mask": jnp.ones((3, 9), bool)}, r"mask: expected .* got \[1, 1, 3, 9\]"),
        ({"mask": jnp.ones((7, 9))}, "mask: expected a bool array, got float32"),
        (
            {"mask": masks.segments(jnp.zeros((2, 7), int))},
            r"k_ids.*: expected shape \[1 or b=2, s=9\]",
        ),
        ({"normalizer": "sofmax"}, "normalizer: expected one of 'softmax', .* got 'sofmax'"),
        ({"implementation": "fast"}, "implementation: expected one of .* got 'fast'"),
        ({"scale": jnp.ones(2)}, r"scale: expected a number, got shape \[2\]"),
        ({"normalizer": "sigmoid", "return_lse": True}, "return_lse: expected .* got 'sigmoid'"),
        ({"normalizer": "sigmoid", "sink": ()}, "sink: expected .* got 'sigmoid'"),
        (
            {"score_mod": lambda s, b, h, i, j: s.sum(-1)},
            "score_mod: expected a function of 5 scalars",
        ),
    ],
)
def test_bad_arguments_are_named(change, message):
    arrays = draw(2, 7, 9, 4, 2, 2, 8, 8)
    shapes = {n: jnp.ones(x) for n, x in change.items() if isinstance(x, tuple)}
    options: dict[str, Any] = {**arrays, **change, **shapes}
    with pytest.raises(ValueError, match=message) as caught:
        attend(**options)
    assert "\n" not in str(caught.value)


def test_what_an_implementation_cannot_do_it_refuses_with_the_reason():
    x = draw(1, 7, 7, 2, 2, 2, 8, 8)["query"]
    options: dict[str, Any]
    for name, options, reason in (
        ("pallas", {"return_weights": True}, "never holds the weights"),
        ("cudnn", {"sink": 0.0}, "it has no sink"),
        ("blockwise", {"return_weights": True}, "never holds the weights"),
    ):
        with pytest.raises(NotImplementedError, match=reason):
            attend(x, x, x, implementation=name, **options)
        assert explain(x, x, x, implementation=name, **options).chosen is None
    long = jnp.ones((1, 1024, 1, 4))
    selection = explain(long, long, long, mask=masks.causal())
    assert selection.chosen == "blockwise"
    assert [name for name, _ in selection.refused] == ["reference", "pallas", "cudnn"]
    assert "not pallas: it needs a TPU" in str(selection)
    assert explain(long, long, long, return_weights=True).chosen == "reference"
    assert explain(long[:, :1], long, long).chosen == "reference"


def test_merge_is_exact_associative_and_differentiable(implementation):
    arrays = draw(1, 70, 150, 2, 1, 2, 8, 8)
    cuts = [(0, 30), (30, 31), (31, 150)]
    mask = np.asarray(random_mask(70, 150)[:1])
    mask[..., 3, :] = mask[..., 5, :30] = False  # A row without keys, and one with an empty part.
    weights = draw(1, 70, 1, 2, 1, 1, 8, 8, lse=(1, 70, 2))

    def part(a, start, stop):
        return attend(
            a["query"], a["key"][:, start:stop], a["value"][:, start:stop],
            mask=jnp.asarray(mask[..., start:stop]), return_lse=True,
            implementation=implementation,
        )  # fmt: skip

    def left(a):
        x, y, z = (part(a, *cut) for cut in cuts)
        return merge(merge(x, y), z)

    def right(a):
        x, y, z = (part(a, *cut) for cut in cuts)
        return merge(x, merge(y, z))

    def whole(a):
        return part(a, 0, 150)

    def run(method, a):
        def loss(a):
            out, lse = method(a)
            return weighed(out, lse, weights["query"], weights["lse"]), (out, lse)

        return jax.value_and_grad(loss, has_aux=True)(a)

    run = jax.jit(run, static_argnums=0)
    (_, (out, lse)), grads = run(whole, arrays)
    assert jnp.isneginf(lse[0, 3]).all()
    for method in (left, right):
        (_, (merged, merged_lse)), merged_grads = run(method, arrays)
        np.testing.assert_allclose(merged, out, atol=2e-6)
        np.testing.assert_allclose(merged_lse, lse, atol=2e-6)
        jax.tree.map(lambda x, y: assert_close(x, y, 1e-5, "gradient"), merged_grads, grads)
