"""Mixers as systems: where two forms are equal (D1 to D5), and softmax's features (D6 to D9)."""

import math

import jax
import jax.numpy as jnp
import numpy as np

import jattn
from experiments.dynamical_systems import figures
from experiments.dynamical_systems.common import claim_of
from experiments.power_law import exponent
from jattn.mechanisms.linear.linear_attention import linear_attention
from jattn.mechanisms.linear.softmax_variants import taylor_exp
from jattn.theory import dynamical_systems as dsf
from jattn.theory import quasi_lstm
from jattn.training import Claim, Run, sweep
from jattn.training.claims import IDENTITY

ROUNDING = 1e-5  # float32, outputs of order one


def _mix(system: dsf.System, value):
    return jnp.einsum("bhij,bjhe->bihe", dsf.mixing_matrix(system), value)


def _gap(value, other):
    """Largest difference, in units of the largest value."""
    return jnp.abs(value - other).max() / jnp.abs(other).max()


def _gated_rnn(cell: dsf.System, value):
    """The textbook loop: a state per channel, forgotten, written and read through gates."""

    def step(state, now):
        forget, write, read, x = now
        state = forget * state + write * x
        return state, read * state

    inputs = (jnp.exp(cell.decay), cell.write, cell.read, value)
    inputs = jax.tree.map(lambda leaf: jnp.moveaxis(leaf[..., 0], 1, 0), inputs)
    _, out = jax.lax.scan(step, jnp.zeros_like(inputs[3][0]), inputs)
    return jnp.moveaxis(out, 0, 1)[..., None]


def _selective_loop(raw, rate, write, read, value):
    """S6 as it is published: h <- exp(-delta a) h + delta b v, o = c h."""
    delta = jax.nn.softplus(raw)

    def step(state, now):
        delta, write, read, value = now
        kept = jnp.exp(-delta[..., None] * rate)[..., None] * state
        state = kept + (delta[..., None] * write)[..., None] * value[..., None, :]
        return state, jnp.einsum("bhn,bhne->bhe", read, state)

    inputs = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), (delta, write, read, value))
    start = jnp.zeros((*write.shape[:1], *write.shape[2:], value.shape[-1]))
    return jnp.moveaxis(jax.lax.scan(step, start, inputs)[1], 0, 1)


def equivalences(run: Run, config) -> list[Claim]:
    """Each mixer as published against its mixing matrix, at random inputs."""
    sizes = config.equivalences

    def compare(seed):
        keys = jax.random.split(jax.random.key(seed), 6)
        shape = (sizes.batch, sizes.length, 1)
        query = jax.random.normal(keys[0], (*shape, sizes.state))
        key = jax.random.normal(keys[1], (*shape, sizes.state))
        value = jax.random.normal(keys[2], (*shape, sizes.value_dim))
        raw = jax.random.normal(keys[3], shape)
        rate = jnp.exp(jax.random.normal(keys[4], (1, sizes.state)))

        positive = jax.nn.elu(query) + 1, jax.nn.elu(key) + 1
        linear = dsf.linear_attention_system(*positive)
        gaps = {
            "linear": _gap(_mix(linear, value), linear_attention(query, key, value, causal=True))
        }
        rows = {"linear": dsf.mixing_matrix(linear).sum(-1)}
        for eta in sorted(dsf.ETAS):
            direct = dsf.normalized_attention(query, key, value, raw, eta=eta)  # type: ignore
            system = dsf.attention_system(query, key, dsf.ETAS[eta](raw))
            gaps[eta] = _gap(_mix(system, value), direct)
            rows[eta] = dsf.mixing_matrix(system).sum(-1)
        for name, chosen in (("s6", rate), ("ssd", rate[:, :1] * jnp.ones_like(rate))):
            system = dsf.selective_system(raw, chosen, key, query)
            gaps[name] = _gap(_mix(system, value), _selective_loop(raw, chosen, key, query, value))
        one = jnp.ones_like(rate)
        reversed_sigmoid = jnp.exp(dsf.selective_system(raw, one, key, query).decay[..., 0])
        gaps["reversed"] = _gap(reversed_sigmoid, jax.nn.sigmoid(-raw))
        tokens = value[:, :, 0]
        params = quasi_lstm.init(keys[5], sizes.value_dim)
        for name, turned in (("qlstm", False), ("qlstm_reversed", True)):
            cell, x, gate = quasi_lstm.system(params, tokens, reversed_gate=turned)
            expected = _gated_rnn(cell, x)
            gaps[name] = _gap(_mix(cell, x), expected)
            out = (gate * expected[..., 0]) @ params.output
            got = quasi_lstm.apply(params, tokens, reversed_gate=turned)
            gaps[f"{name}_layer"] = _gap(got, out)
        return gaps | {f"rows_{name}": jnp.abs(r - 1).max() for name, r in rows.items()}

    cells = [np.int32(config.seed + seed) for seed in range(config.seeds)]
    found = sweep(run, "equivalences", compare, cells)
    worst = {name: float(values.max()) for name, values in found.items()}
    words = {
        "linear": "linear attention, feature map elu + 1",
        "exp": "normalised attention, exponential normaliser",
        "softplus": "normalised attention, softplus",
        "sigmoid": "normalised attention, sigmoid",
        "s6": "S6, a decay for each state",
        "ssd": "SSD, one decay a head",
        "qlstm": "the gates and state of the quasi-LSTM",
        "qlstm_reversed": "the same with the reversed gate",
    }
    note = f"relative to the largest output; {sizes.length} tokens, {config.seeds} seeds, float32"
    claims = [
        claim_of(f"D1-{name}", f"as published = its mixing matrix: {text}", 0.0, worst[name],
                 "<=", ROUNDING, where="section 3", note=note, kind=IDENTITY)
        for name, text in words.items()
    ]  # fmt: skip
    layer = max(worst["qlstm_layer"], worst["qlstm_reversed_layer"])
    others = min(float(found[f"rows_{eta}"].min()) for eta in dsf.ETAS)
    return [
        *claims,
        claim_of("D2", "the quasi-LSTM layer is that system between projections", 0.0, layer,
                 "<=", ROUNDING, where="section 5", note=note, kind=IDENTITY),
        claim_of("D3", "the decay of S6 with rate 1 is the reversed sigmoid", 0.0,
                 worst["reversed"], "<=", 1e-6, where="section 5", kind=IDENTITY),
        claim_of("D4", "rows of linear attention's mixing matrix sum to 1: largest deviation", 0.0,
                 worst["rows_linear"], "<=", ROUNDING, where="section 4", kind=IDENTITY),
        claim_of("D5", "those of normalised attention do not: smallest over normalisers of the "
                 "largest deviation", 0.1, others, ">=", where="section 4",
                 because="a tenth is far above rounding", kind=IDENTITY),
    ]  # fmt: skip


def features(run: Run, config) -> list[Claim]:
    """How many features a finite system needs to stand in for softmax attention."""
    sizes = config.features
    orders, scales = tuple(sizes.orders), tuple(sizes.scales)

    def compare(cell):
        seed, scale = cell["seed"], cell["scale"]
        of_query, of_key, of_value = jax.random.split(jax.random.key(seed), 3)
        shape = (1, sizes.length, 1, sizes.dim)
        query = jax.random.normal(of_query, shape) * jnp.sqrt(scale)
        key = jax.random.normal(of_key, shape) * jnp.sqrt(scale)
        value = jax.random.normal(of_value, shape)
        exact = jattn.attend(query, key, value, mask=jattn.masks.causal())
        score = jnp.einsum("bihd,bjhd->bhij", query, key) * sizes.dim**-0.5

        def truncated(order):
            weight = jnp.tril(taylor_exp(score, order))
            weight = weight / weight.sum(-1, keepdims=True)
            return jnp.einsum("bhij,bjhe->bihe", weight, value)

        # The system itself where it is small; its mixing matrix's formula beyond.
        mapped = [dsf.taylor_features(x * sizes.dim**-0.25, 4) for x in (query, key)]
        system = dsf.linear_attention_system(*mapped)
        same = jnp.abs(_mix(system, value) - truncated(4)).max()
        errors = jnp.stack([jnp.abs(truncated(order) - exact).max() for order in orders])
        # The first term that is left out, of all keys, over the sum that it is left out of.
        seen = jnp.tril(jnp.ones_like(score)) > 0
        total = jnp.where(seen, jnp.exp(score), 0).sum(-1)
        terms = [
            jnp.where(seen, jnp.abs(score) ** (order + 1), 0).sum(-1)
            / float(math.factorial(order + 1))
            for order in orders
        ]
        left_out = jnp.stack([(term / total).max() for term in terms])
        largest = jnp.abs(score).max()
        return {"error": errors, "same": same, "largest": largest, "left_out": left_out}

    cells = [
        {"seed": np.int32(config.seed + seed), "scale": np.float32(scale)}
        for scale in scales
        for seed in range(sizes.seeds)
    ]
    found = sweep(run, "features", compare, cells)
    error = np.median(found["error"].reshape(len(scales), sizes.seeds, -1), axis=1)
    largest = np.median(found["largest"].reshape(len(scales), -1), axis=1)
    figures.features_of_softmax(run, error, orders, scales, largest, sizes.dim)
    even = [i for i, order in enumerate(orders) if order % 2 == 0]
    seeds = f"median of {sizes.seeds} draws, n = {sizes.dim}, {sizes.length} tokens"
    listed = [f"{error[0, i]:.2g} (order {orders[i]})" for i in range(len(orders))][:4]
    needed = [_needed(row, orders) for row in error]
    left_out = np.median(found["left_out"].reshape(len(scales), sizes.seeds, -1), axis=1)
    predicted = [_needed(row, orders) for row in left_out]
    small = found["same"].reshape(len(scales), -1)[0].max()
    return [
        claim_of("D6", "linear attention on Taylor features is the series cut at that order", 0.0,
                 float(small), "<=", 1e-5, where="section 3",
                 note=f"scores x {scales[0]}, order 4", kind=IDENTITY),
        claim_of("D7", "the error of order 2 grows as the third power of the scores: log-log slope "
                 f"from scores x {scales[0]} to x {scales[1]}", 3.0,
                 float(exponent(scales[:2], error[:2, orders.index(2)])), "~=", 0.3,
                 where="section 3", derived=True, note="; ".join([", ".join(listed), seeds])),
        claim_of("D8", "each even order is closer than the one before: largest ratio at small "
                 "scores, down to rounding", 1.0, _largest_ratio(error[0, even]), "<",
                 where="section 3", derived=True, note=seeds),
        claim_of("D9", "the order that an error of 0.01 needs is the least P whose first term "
                 "left out, sum_j |s_ij|^(P+1) / (P+1)!, is at most 0.01 of the row's sum: largest "
                 "distance over scales",
                 0.0, float(max(abs(n - p) for n, p in zip(needed, predicted, strict=True))), "<=",
                 2.0, where="section 3", derived=True,
                 note=", ".join(f"scores x {s}: {n:g}, predicted {p:g}"
                                for s, n, p in zip(scales, needed, predicted, strict=True))),
    ]  # fmt: skip


def _needed(errors: np.ndarray, orders: tuple[int, ...]) -> float:
    """The least order from which on the error stays below 0.01; inf if none does."""
    for i, order in enumerate(orders):
        if (errors[i:] <= 0.01).all():
            return float(order)
    return float("inf")


def _largest_ratio(errors: np.ndarray) -> float:
    above = errors[:-1] > 1e-6
    return float((errors[1:][above] / errors[:-1][above]).max())
