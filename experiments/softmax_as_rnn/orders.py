"""Softmax by orders (R1 to R6), and its denominator as a norm (R7, R8); nothing is trained."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jattn
from experiments.softmax_as_rnn import figures
from experiments.softmax_as_rnn.common import PAPER
from jattn.mechanisms.layers.norms import unit
from jattn.mechanisms.linear.softmax_rnn import taylor_rnn
from jattn.mechanisms.linear.softmax_variants import softmax_variant, taylor_exp
from jattn.recurrence.feature_maps import taylor_features
from jattn.training import Claim, Run, UsageError, sweep
from jattn.training.claims import IDENTITY, REFERENCE

SINGLE_DRAW = "an independent script has it, of a single draw"
RECURRENT = (0, 2, 4)  # orders run as recurrences, too
SMALL = 0.01  # an error that counts as softmax
# Largest errors of outputs, 8 channels and 32 tokens of unit scale, one draw.
KNOWN = {4: 0.26, 6: 0.088, 10: 2.0e-3}
# Of the polynomial on [-4, 4]: largest errors, and least values of even orders.
ERRORS = {10: 0.155, 16: 6.2e-5}
LEAST = {2: 0.5, 4: 0.2704, 6: 0.1493}
# Algebra of the exponential, true of the code whatever trained models do.
IDENTITIES = re.compile(r"R[1-4](-.*)?|R[678]")


def _claim(id: str, *values: Any, **source: Any) -> Claim:
    """A claim on this paper, of its kind."""
    kind = {"kind": IDENTITY} if IDENTITIES.fullmatch(id) else {}
    return PAPER.claim(id, *values, **(kind | source))


def check(config) -> None:
    """Refuses settings that could not work, before anything is computed."""
    sizes = config.orders
    if any(order % 2 or order < 0 for order in sizes.orders) or not {*RECURRENT, *KNOWN} <= set(
        sizes.orders
    ):
        raise UsageError(
            "orders.orders: expected even numbers with 0, 2, 4, 6 and 10 among them, got "
            f"{tuple(sizes.orders)}"
        )
    if 1.0 not in sizes.scales or list(sizes.scales) != sorted(set(sizes.scales)):
        raise UsageError(
            f"orders.scales: expected rising numbers with 1.0, got {tuple(sizes.scales)}"
        )


def orders(run: Run, config) -> list[Claim]:
    """Distance from softmax of the orders up to N, at several scales of the scores."""
    sizes = config.orders
    found = sweep(run, "orders", lambda scale: _compare(config, scale), _scales(sizes))
    median = {name: np.median(found[name], axis=-1) for name in ("sum", "l2")}
    largest = np.median(found["largest"], axis=-1)
    figures.error_by_order(run, median, tuple(sizes.orders), tuple(sizes.scales), largest)
    at = {order: i for i, order in enumerate(sizes.orders)}
    unit_scale = tuple(sizes.scales).index(1.0)
    row = median["sum"][unit_scale]
    ratios = [abs(math.log2(row[at[order]] / known)) for order, known in KNOWN.items()]
    irrelevant = found["irrelevant"].max((1, 2))
    needed = [_needed(errors, sizes.orders) for errors in median["sum"]]
    draws = f"median of {sizes.draws} draws, {sizes.dim} channels, {sizes.length} tokens"
    listed = ", ".join(f"{row[at[n]]:.2g} (order {n})" for n in (2, *KNOWN))
    above = row[:-1] > 1e-5  # down to rounding
    steps = (row[1:] / row[:-1])[above]
    return [
        *_polynomial(),
        _claim("R4", "orders as recurrences = the quadratic form: largest difference", 0.0,
               float(found["recurrent"].max()), "<=", 1e-4,
               note=f"orders {', '.join(map(str, RECURRENT))}; {draws}"),
        _claim("R5", "even orders approach softmax: largest ratio of an error to the one before",
               1.0, float(steps.max()), "<", None, note=draws),
        _claim("R5-size", "errors at orders 4, 6 and 10 are 0.26, 0.088 and 2.0e-3 within a factor "
               "of 2: largest |log2 of the ratio|", 0.0, max(ratios), "<=", 1.0,
               because=SINGLE_DRAW, kind=REFERENCE,
               note=f"{listed}; those are of a single draw, here the {draws}"),
        _claim("R6", "larger scores need more orders for an error of 0.01: order at the last scale "
               "less that at the first", 2, needed[-1] - needed[0], ">=",
               because="it is one more even order",
               note=", ".join(f"scores x {s:g} (largest {m:.1f}): order {n:g}" for s, m, n in
                              zip(sizes.scales, largest, needed, strict=True))),
        _claim("R7", "a norm of exp(s) V has the direction of softmax attention: largest "
               "difference", 0.0, float(found["direction"].max()), "<=", 1e-5,
               note="the weights summed as they are, in float32"),
        _claim("R8", "behind RMSNorm or LayerNorm the denominator changes nothing, up to their "
               "epsilon: largest difference", 0.0, float(irrelevant[: unit_scale + 1].max()), "<=",
               1e-3, note=f"values x 100, scores to x 1; at scores x {sizes.scales[-1]:g} it is "
               f"{irrelevant[-1]:.2g}, where a lone key's exp(s) falls below the epsilon"),
    ]  # fmt: skip


def _scales(sizes) -> list[np.float32]:
    return [np.float32(scale) for scale in sizes.scales]


def _compare(config, scale) -> dict[str, jax.Array]:
    """Everything at one scale of the scores, a number for each draw."""
    sizes = config.orders
    shape = (sizes.draws, sizes.length, 1, sizes.dim)
    query, key, value = jax.random.normal(jax.random.key(config.seed), (3, *shape))
    query, mask = query * scale, jattn.masks.causal()
    seen = jnp.arange(1, sizes.length + 1)[None]

    def run(value=value, **parts):
        return softmax_variant(query, key, value, mask=mask, visible_keys=seen, **parts)

    def gap(x, y):
        return jnp.abs(x - y).max((1, 2, 3))

    softmax = run()
    errors: dict[str, list[jax.Array]] = {"sum": [], "l2": []}
    recurrent = []
    for order in sizes.orders:
        cut = run(numerator="taylor", order=order)
        errors["sum"].append(gap(cut, softmax))
        errors["l2"].append(gap(unit(cut), unit(softmax)))
        if order in RECURRENT:
            recurrent.append(gap(cut, taylor_rnn(query, key, value, order, causal=True)))
    # A limit that no score reaches keeps the weights from being divided behind the scenes.
    direction = run(clamp=80.0, normalizer="none", post="l2")
    wide = 100 * value
    irrelevant = [
        gap(run(wide, normalizer=normalizer, post=post, clamp=5.0), run(wide, post=post, clamp=5.0))
        for post in ("rms", "layer")
        for normalizer in ("none", "length", "clamp")
    ]
    score = jnp.einsum("bthd,bshd->bts", query, key) * sizes.dim**-0.5
    return {
        "sum": jnp.stack(errors["sum"]),
        "l2": jnp.stack(errors["l2"]),
        "recurrent": jnp.stack(recurrent),
        "direction": gap(direction, unit(softmax)),
        "irrelevant": jnp.stack(irrelevant),
        "largest": jnp.abs(score).max((1, 2)),
    }


def _polynomial() -> list[Claim]:
    """The exponential's polynomial itself, in double precision, and its features."""
    with jax.enable_x64(True):
        x = jnp.linspace(-4, 4, 4001)
        values = {n: np.asarray(taylor_exp(x, n)) for n in range(17)}
        exact = np.exp(np.asarray(x))
        # Odd ones go below zero further out.
        far = {n: float(taylor_exp(jnp.float64(-30.0), n)) for n in values}
        one, two = jax.random.normal(jax.random.key(0), (2, 6), jnp.float64)
        features = [taylor_features(y, 4) for y in (one, two)]
        squares = [abs(float(a @ b) - float(one @ two) ** n / math.factorial(n))
                   for n, (a, b) in enumerate(zip(*features, strict=True))]  # fmt: skip
    scale = np.abs(np.asarray(x))
    worst = max(
        float((np.abs(values[n] - exact)[scale > 0.5]
               / (scale ** (n + 1) / math.factorial(n + 1) * np.maximum(1, exact))[scale > 0.5]
               ).max())
        for n in values if n <= 12  # beyond, the error is rounding
    )  # fmt: skip
    error = {n: float(np.abs(values[n] - exact).max()) for n in ERRORS}
    least = {n: float(values[n].min()) for n in LEAST}
    signs = all((far[n] < 0) == bool(n % 2) for n in values)
    return [
        *(_claim(f"R1-{n}", f"largest error of the exponential's first {n} orders on [-4, 4]",
                 known, error[n], "~=", 0.005 * known, derived=True)
          for n, known in ERRORS.items()),
        _claim("R1-bound", "errors are within |s|^(N+1) max(1, e^s) / (N+1)!: largest ratio", 1.0,
               worst, "<=", 1e-6, derived=True, note="orders to 12 on [-4, 4]"),
        *(_claim(f"R2-{n}", f"least value of the polynomial of order {n}", known, least[n], "~=",
                 1e-4, derived=True) for n, known in LEAST.items()),
        _claim("R2-odd", "odd orders, and only those, fall below zero", True, signs, "is",
               derived=True),
        _claim("R3", "order 2 needs d (d + 1) / 2 features", 21, features[0][2].size, "is",
               derived=True, note="d = 6"),
        _claim("R3-product", "products of such features are (q.k)^n / n!: largest difference", 0.0,
               max(squares), "<=", 1e-9, note="d = 6, orders to 4, double precision"),
    ]  # fmt: skip


def _needed(errors: np.ndarray, listed) -> float:
    """The least order from which on the error stays small; inf if there is none."""
    for i, order in enumerate(listed):
        if (errors[i:] <= SMALL).all():
            return float(order)
    return float("inf")
