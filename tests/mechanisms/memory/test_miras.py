"""Miras: its definition, the limits of its losses and retentions, chunks, steps."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo
from jattn.mechanisms.layers.norms import unit_norm
from jattn.mechanisms.memory import miras, miras_rule
from jattn.mechanisms.memory.linear_memory import linear_memory
from jattn.mechanisms.memory.miras_rule import Rule, soft, state_of, weights_of
from jattn.mechanisms.memory.networks import network, network_init
from jattn.recurrence import recur

B, T, H, D = 1, 5, 2, 3
scan = jax.jit(
    functools.partial(miras.miras_scan, apply_fn=network), static_argnames=("rule", "chunk")
)
slope = jax.jit(miras_rule.slope, static_argnums=0)
RULES = {
    "l2": Rule(),
    "yaad": Rule("huber"),
    "norm": Rule("huber_norm"),
    "robust": Rule("robust"),
    "moneta": Rule("lp", "lq", sharpness=2.0),
    "memora": Rule("l2", "kl"),
    "elastic": Rule("l2", "elastic", l1=0.3),
    "sigmoid": Rule("l2", "sigmoid"),
    "columns": Rule("l2", "kl", axis=0),
    "signed": Rule("l2", "kl", signed=True, total=4.0),
}


def close(a, b, tolerance=2e-5):
    np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.fixture(scope="module")
def case():
    """Query, key, value; alpha, eta and delta a channel; a matrix and a network a head."""
    with jax.enable_x64(False):
        keys = jax.random.split(jax.random.key(0), 6)
        query, key, value = jax.random.normal(keys[0], (3, B, T, H, D))
        alpha = jax.random.uniform(keys[1], (B, T, H), minval=0.7)
        eta, delta = jax.random.uniform(keys[2], (2, B, T, H, D), maxval=0.5)
        matrix = {"weights": [jax.random.normal(keys[3], (H, D, D))]}
        deep = jax.vmap(lambda k: network_init(k, D, expansion=2))(jax.random.split(keys[4], H))
    rates = {"alpha": alpha, "eta": eta, "delta": delta}
    return (unit_norm(query), unit_norm(key), value), rates, matrix, deep


LOSS = {  # each loss itself, to be differentiated
    "l2": lambda e, delta: (e**2).sum() / 2,
    "huber": lambda e, delta: jnp.where(
        jnp.abs(e) <= delta, e**2 / 2, delta * (jnp.abs(e) - delta / 2)
    ).sum(),
}


def naive(rule, params0, qkv, rates):
    """The recurrence as it is written; eta and delta one number a token."""

    def pull(weights, key, value, delta):
        loss = lambda w: LOSS[rule.loss](network(w, key) - value, delta)
        return jax.grad(loss)(weights)

    @jax.jit
    def update(state, query, key, value, alpha, eta, delta):
        gradient = pull(weights_of(rule, state), key, value, delta)
        if rule.retention == "kl":  # through the weights themselves, as in the paper
            old = weights_of(rule, state)
            state = jax.tree.map(
                lambda w, g: alpha * jnp.log(w) - eta * g if w.ndim > 1 else alpha * w - eta * g,
                old,
                gradient,
            )
        elif rule.retention == "elastic":
            state = jax.tree.map(
                lambda a, g: soft(alpha * a - alpha * eta * g, alpha * eta * rule.l1),
                state,
                gradient,
            )
        else:
            state = jax.tree.map(lambda a, g: alpha * a - eta * g, state, gradient)
        return state, network(weights_of(rule, state), query)

    out = np.zeros(qkv[2].shape)
    for h in range(H):
        state = jax.tree.map(lambda x: x[h], params0)  # noqa: B023
        for t in range(T):
            inputs = (
                *(x[0, t, h] for x in qkv),
                *(rates[n][0, t, h] for n in ("alpha", "eta", "delta")),
            )
            state, out[0, t, h] = update(state, *inputs)
    return out


@pytest.mark.parametrize(
    "rule", [Rule(), Rule("huber", "lq"), Rule("l2", "kl"), Rule("l2", "elastic", l1=0.3)]
)
def test_chunks_of_one_token_are_the_loop(x64, case, rule):
    # The network's norm enlarges rounding, hence float64.
    qkv, rates, _, deep = jax.tree.map(lambda x: x.astype(jnp.float64), case)
    rates = {n: r[..., 0] if r.ndim == 4 else r for n, r in rates.items()}
    close(scan(*qkv, params0=deep, **rates, rule=rule)[0], naive(rule, deep, qkv, rates), 1e-10)


@pytest.mark.parametrize("name", RULES)
def test_chunks_are_steps_and_approach_the_loop_as_eta_falls(case, name):
    qkv, rates, matrix, _ = case
    rule, memory = RULES[name], functools.partial(scan, *qkv, params0=matrix, rule=RULES[name])
    one_step = functools.partial(miras.miras_step, apply_fn=network, rule=rule, chunk=3)

    @jax.jit
    def steps(params0, *inputs):
        step = lambda state, token: one_step(state, *token)
        return jax.lax.scan(step, miras.start(params0), inputs)[1]

    inputs = (x[0].swapaxes(0, 1) for x in (*qkv, rates["alpha"], rates["eta"], rates["delta"]))
    close(
        memory(**rates, chunk=3)[0][0].swapaxes(0, 1),
        jax.vmap(steps)(state_of(rule, matrix), *inputs),
    )

    one = jnp.ones((B, T, H))  # decay moves the gradient point, too, and not with eta

    @jax.enable_x64(True)  # at a small eta the gap is of the size of float32's rounding
    def gap(scale):
        wide = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float64), tree)
        small = wide(rates | {"alpha": one, "eta": scale * rates["eta"]})
        run = functools.partial(scan, *wide(qkv), params0=wide(matrix), rule=rule)
        return float(jnp.abs(run(**small, chunk=3)[0] - run(**small)[0]).max())

    assert gap(0.02) < 0.02 * gap(0.2)  # of second order in eta


def test_squares_and_a_matrix_are_the_delta_rule(case):
    qkv, rates, matrix, _ = case
    eta, one = rates["eta"][..., 0], jnp.ones((B, T, H))
    start = matrix["weights"][0][None]
    expected = recur(*qkv, beta=eta, initial_state=start, mode="scan")
    close(scan(*qkv, params0=matrix, alpha=one, eta=eta)[0], expected)


@pytest.mark.parametrize("name", ["l2", "yaad"])
def test_a_matrix_in_chunks_is_the_closed_form(case, name):
    (query, key, value), rates, matrix, _ = case
    rule = RULES[name]
    out, state, _ = linear_memory(
        matrix["weights"][0], query, key, value, rates["eta"], 1 - rates["alpha"], refresh=3,
        slope=jax.vmap(functools.partial(miras_rule.slope, rule)),
        slope_inputs=rates["delta"],
    )  # fmt: skip
    expected, last = scan(query, key, value, params0=matrix, **rates, rule=rule, chunk=3)
    close(out, expected)
    close(state, last["weights"][0])


def test_losses_and_their_limits():
    error, one = jnp.array([3.0, -0.5, 0.2, 0.0]), jnp.array(1.0)
    for name in ("huber", "huber_norm"):
        rule = Rule(name)
        close(slope(rule, error, 1e6 * one), error)
        close(slope(rule, error, 0 * one), 0)
    unit = error / jnp.linalg.norm(error)
    close(slope(Rule("huber_norm"), error, 1e-3 * one) / 1e-3, unit)
    close(slope(Rule("robust"), error, 2 * one), error + 2 * unit)
    close(slope(Rule("huber"), error, one), jax.grad(lambda e: LOSS["huber"](e, 1.0))(error))
    close(slope(Rule("lp", power=2.0, sharpness=1e4), error, one), 2 * error, 1e-2)
    close(slope(Rule("lp", power=1.0), error, one), jnp.tanh(10 * error))
    cube = jax.grad(lambda e: (jnp.abs(e) ** 3).sum())(error)
    close(slope(Rule("lp", sharpness=100.0), error, one), cube, 1e-3)
    for rule, at in ((Rule("huber"), error / 3), (Rule("huber_norm"), unit)):  # the border
        close(slope(rule, at * 0.9999, one), slope(rule, at * 1.0001, one), 1e-3)


def test_an_update_is_bounded_by_the_threshold(case):
    (query, key, value), rates, _, _ = case
    zero = {"weights": [jnp.zeros((H, D, D))]}
    eta, delta = (rates[n][..., 0] for n in ("eta", "delta"))
    _, state = scan(
        query[:, :1], key[:, :1], 1e4 * value[:, :1], params0=zero,
        alpha=rates["alpha"][:, :1], eta=eta[:, :1], delta=delta[:, :1], rule=Rule("huber_norm"),
    )  # fmt: skip
    size = jnp.linalg.norm(state["weights"][0], axis=(-2, -1))
    close(size, eta[:, 0] * delta[:, 0], 1e-4)  # keys have unit norm


def test_retentions_and_their_limits(case):
    qkv, rates, matrix, _ = case
    state = matrix["weights"][0][0]
    close(weights_of(Rule(retention="lq", norm=2.0), state), state)
    for q in (3.0, 4.0):
        rule = Rule(retention="lq", norm=q)
        scaled = weights_of(rule, 2.0 * state)
        np.testing.assert_allclose(scaled, 2 ** (3 - q) * weights_of(rule, state), rtol=1e-4)
    kl = Rule("l2", "kl", total=2.0)
    weights = weights_of(kl, state)
    close(weights.sum(), 2.0)
    assert (weights > 0).all()
    close(weights_of(kl, state + 7.0), weights)

    def last(alpha, eta):
        _, end = scan(
            *qkv, params0=matrix, alpha=jnp.full((B, T, H), alpha), eta=jnp.full((B, T, H), eta),
            rule=kl,
        )  # fmt: skip
        return jax.vmap(lambda a: weights_of(kl, a))(end["weights"][0][0])

    close(last(1.0, 0.0), jax.vmap(lambda a: weights_of(kl, a))(matrix["weights"][0]))
    close(last(0.0, 0.0), 2.0 / D**2)
    moved = last(0.9, 0.3)
    close(moved.sum((1, 2)), 2.0)
    assert (moved > 0).all()
    close(soft(jnp.array([0.0, -3.0, 0.5]), jnp.array(1.0)), jnp.array([0.0, -2.0, 0.0]))
    decayed = rates | {"eta": rates["eta"] * rates["alpha"][..., None]}
    close(
        scan(*qkv, params0=matrix, **rates, rule=Rule("l2", "elastic"))[0],
        scan(*qkv, params0=matrix, **decayed)[0],
    )


def test_going_on_from_a_border_is_one_pass(case):
    qkv, rates, _, deep = case
    for rule in (RULES["yaad"], RULES["memora"]):
        run = functools.partial(scan, params0=deep, rule=rule, chunk=3)
        whole, end = run(*qkv, **rates)
        cut = lambda x, part: x[:, :3] if part == 0 else x[:, 3:]
        halves = [
            ([cut(x, i) for x in qkv], {n: cut(r, i) for n, r in rates.items()}) for i in (0, 1)
        ]
        first, state = run(*halves[0][0], **halves[0][1])
        rest, last = run(*halves[1][0], **halves[1][1], initial=state)
        close(jnp.concatenate([first, rest], 1), whole)
        jax.tree.map(close, last, end)


def test_signed_weights_are_the_difference_of_halves_that_share_a_sum(case):
    qkv, rates, matrix, _ = case
    rule = RULES["signed"]
    _, end = scan(*qkv, params0=matrix, **rates, rule=rule, chunk=1)
    halves = 4.0 * jax.nn.softmax(end["weights"][0], axis=(-3, -2, -1))
    assert halves.shape == (B, H, 2, D, D)
    close(halves.sum((-3, -2, -1)), 4.0)
    weights = jax.vmap(jax.vmap(functools.partial(weights_of, rule)))(end["weights"][0])
    close(weights, halves[:, :, 0] - halves[:, :, 1])
    assert weights.min() < 0 < weights.max()
    by_column = weights_of(RULES["columns"], matrix["weights"][0][0])
    close(by_column.sum(0), 1.0)


def test_momentum_factors_and_channels_are_their_loop(x64, case):
    """S_t = m S_{t-1} - scale eta g and A_t = alpha A_{t-1} + S_t, alpha one a channel."""
    qkv, rates, matrix, _ = jax.tree.map(lambda x: x.astype(jnp.float64), case)
    keys = jax.random.split(jax.random.key(7), 3)
    momentum, scale = (jax.random.uniform(k, (B, T, H), jnp.float64) for k in keys[:2])
    alpha = jax.random.uniform(keys[2], (B, T, H, D), jnp.float64)
    out, (last, surprise) = scan(
        *qkv, params0=matrix, alpha=alpha, eta=rates["eta"], momentum=momentum,
        scale={"weights": [scale]}, rule=Rule(),
    )  # fmt: skip
    query, key, value, alpha, eta, momentum, scale = (
        np.asarray(x[0]) for x in (*qkv, alpha, rates["eta"], momentum, scale)
    )
    for h in range(H):
        weights, moved = np.asarray(matrix["weights"][0][h]), np.zeros((D, D))
        for t in range(T):
            error = key[t, h] @ weights - value[t, h]
            step = scale[t, h] * np.outer(key[t, h], eta[t, h] * error)
            moved = momentum[t, h] * moved - step
            weights = weights * alpha[t, h] + moved
            close(out[0, t, h], query[t, h] @ weights, 1e-12)
        close(last["weights"][0][0, h], weights, 1e-12)
        close(surprise["weights"][0][0, h], moved, 1e-12)


SETTINGS: dict[str, dict[str, Any]] = {
    "yaad": {"loss": "huber"},
    "moneta": {"loss": "lp", "retention": "lq"},
    "memora": {"retention": "kl"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_miras_are_its_mechanisms(name):
    sizes: dict[str, Any] = dict(dim=4, heads=2, causal=True, depth=1, chunk=2, rank=3)
    own, general = zoo.make(name, **sizes), zoo.make("miras", **sizes, **SETTINGS[name])
    params = own.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, T, 4))
    close(jax.jit(general.apply)(params, x), jax.jit(own.apply)(params, x), 1e-5)


@pytest.mark.parametrize("depth", [1, 2])
def test_miras_with_momentum_is_titans_memory(depth):
    """Titans' rates, by a map of full rank: step, forgetting and momentum of each head and leaf."""
    dim, heads, leaves = 4, 2, 1 if depth == 1 else 3
    sizes: dict[str, Any] = dict(dim=dim, heads=heads, causal=True, depth=depth, expansion=2)
    titans = zoo.make("titans_memory", **sizes, refresh=3)
    general = zoo.make("miras", **sizes, chunk=3, rank=dim, momentum=True)
    params = titans.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, T, dim))
    maps, biases = params["rates"], params["rates_bias"]
    step, forget, momentum = (
        slice(0, leaves * heads), slice(leaves * heads, -heads), slice(-heads, None)
    )  # fmt: skip
    nothing, by_channel = np.zeros((dim, dim)), dim // heads
    # sigmoid(-x) = 1 - sigmoid(x): what is kept is what is not forgotten.
    if depth == 1:
        parts = [(-maps[:, forget], -biases[forget])]
        parts.append((maps[:, step].repeat(by_channel, 1), biases[step].repeat(by_channel)))
        parts.append((maps[:, momentum], biases[momentum]))
    else:
        parts = [(-maps[:, forget], -biases[forget]), (nothing, np.zeros(dim))]
        parts.append((maps[:, momentum], biases[momentum]))
        parts.append((maps[:, step], biases[step]))
    own = {name: params[name] for name in ("query", "key", "value", "output", "memory")}
    own |= {
        "gate": jnp.zeros((dim, dim)),  # open
        "rates_down": jnp.eye(dim),
        "rates_up": jnp.concatenate([weights for weights, _ in parts], 1),
        "rates_bias": jnp.concatenate([bias for _, bias in parts]),
    }
    close(jax.jit(general.apply)(own, x), jax.jit(titans.apply)(params, x), 1e-5)


def test_miras_is_the_delta_rule():
    dim, heads = 4, 2
    sizes: dict[str, Any] = dict(dim=dim, heads=heads, causal=True)
    delta, general = zoo.make("delta_rule", **sizes), zoo.make("miras", **sizes, depth=1, chunk=1)
    params = delta.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, T, dim))
    own = {name: params[name] for name in ("query", "key", "value", "output")}
    beta = params["beta"].repeat(dim // heads, 1)
    down = jnp.zeros((dim, 32)).at[:, :dim].set(beta)
    own |= {
        "gate": jnp.zeros((dim, dim)),
        "rates_down": down,
        "rates_up": jnp.zeros((32, heads + dim)).at[:dim, heads:].set(jnp.eye(dim)),
        "rates_bias": jnp.zeros(heads + dim).at[:heads].set(40.0),  # all is kept
        "memory": {"weights": [jnp.zeros((heads, dim // heads, dim // heads))]},
    }
    close(jax.jit(general.apply)(own, x), jax.jit(delta.apply)(params, x), 1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("yaad", {"depth": 1}),
        ("moneta", {}),
        ("memora", {}),
        ("miras", {"retain": "channel", "momentum": True, "residual_norm": False}),
        ("miras", {"depth": 1, "retention": "kl", "signed": True, "momentum": True}),
    ],
)
def test_steps_across_chunks_and_a_state_that_does_not_grow(x64, name, options):
    """In float64, for Memora's weights are a softmax of sums that rounding moves."""
    with jax.enable_x64(False):
        mixer = zoo.make(name, dim=6, heads=2, causal=True, chunk=2, rank=4, **options)
        params = mixer.init(jax.random.key(0))
        x = jax.random.normal(jax.random.key(1), (2, T, 6))
    params, x = jax.tree.map(lambda a: a.astype(jnp.float64), (params, x))
    assert mixer.init_state is not None
    state = mixer.init_state(params, 2, T)
    longer = jax.eval_shape(lambda: mixer.init_state(params, 2, 100 * T))  # type: ignore
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(lambda s: s.shape, longer)

    @jax.jit
    def decode(state, x):
        def step(state, token):
            y, state = mixer.step(params, token, state)  # type: ignore
            return state, y

        return jnp.moveaxis(jax.lax.scan(step, state, jnp.moveaxis(x, 1, 0))[1], 0, 1)

    close(decode(state, x), jax.jit(mixer.apply)(params, x), 1e-10)


def test_errors(plain_checks, case):
    qkv, rates, matrix, _ = case
    for message, options in {
        "rule.loss: expected one of": {"rule": Rule("l3")},
        "rule.retention: expected one of": {"rule": Rule("l2", "l3")},
        "chunk: expected at least 1, got 0": {"chunk": 0},
        r"eta: expected shape \[b=1, t=5": {"eta": jnp.ones((B, T + 1, H))},
    }.items():
        chosen: dict[str, Any] = {**rates, **options}
        with pytest.raises(ValueError, match=message):
            miras.miras_scan(*qkv, params0=matrix, apply_fn=network, **chosen)
    with pytest.raises(ValueError, match="rank: expected at least 1"):
        zoo.make("yaad", dim=4, heads=2, causal=True, rank=0)
