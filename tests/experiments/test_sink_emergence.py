"""Sinks at toy sizes: the network against the library's operations, masks, data, claims."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.sink_emergence import PRESETS, get_config
from experiments.sink_emergence import emergence, network, run_experiment, training
from experiments.sink_emergence.arm import OPERATIONS, Arm, arrays
from jattn.attention import attend, masks
from jattn.lens.sinks import importance
from jattn.theory.sink_operations import kernel_attention, similarity_attention
from jattn.training import Run, UsageError

T, H, D = 6, 2, 4


def toy(**changes) -> Any:
    config: Any = get_config()
    config.update(
        {"length": 8, "dim": 8, "vocabulary": 9, "steps": 2, "eval_every": 1, "seeds": 2,
         "batch_size": 2, "test_size": 2, "window": 3, "prefix": 3,
         "parallel": {"mesh": {"data": 1}}, **changes}
    )  # fmt: skip
    return config


@pytest.fixture(scope="module")
def parts():
    keys = jax.random.split(jax.random.key(0), 8)
    query, key, value = (jax.random.normal(k, (2, T, H, D)) for k in keys[:3])
    layer = {
        "key_bias": jax.random.normal(keys[3], (H, D)),
        "value_bias": jax.random.normal(keys[4], (H, D)),
        "features": [jax.random.normal(k, (D, D)) for k in keys[5:7]],
    }
    return query, key, value, layer


@pytest.fixture(scope="module")
def of_arms(parts):
    """What every operation and bias gives, in one program."""
    query, key, value, layer = parts
    arms = [Arm(operation=o, positions="none") for o in OPERATIONS]
    arms += [Arm(bias=b, positions="none") for b in ("key", "key_value", "value")]

    @jax.jit
    @jax.vmap
    def run(arm):
        seen = network.visible(arm, T)
        return network.mixed(query, key, value, layer, arm, seen)

    return dict(zip(arms, zip(*run(arrays(arms)), strict=True), strict=True))


def test_operations_are_the_librarys(parts, of_arms):
    query, key, value, layer = parts
    found = {arm.operation: out for arm, (out, *_) in of_arms.items() if arm.bias == "none"}
    features = lambda x: jax.nn.relu(x @ layer["features"][0]) @ layer["features"][1]
    own = {
        "softmax": attend(query, key, value, mask=masks.causal()),
        "identity": kernel_attention(query, key, value),
        "elu_kernel_norm": kernel_attention(query, key, value, feature_map="elu1", normalize=True),
        "mlp": kernel_attention(features(query), features(key), value),
        "mlp_norm": kernel_attention(features(query), features(key), value, normalize=True),
    }
    for similarity in ("sigmoid", "elu"):
        for norm in (False, True):
            options: Any = dict(similarity=similarity, normalize=norm)
            own[similarity + "_norm" * norm] = similarity_attention(query, key, value, **options)
    for operation in OPERATIONS:
        np.testing.assert_allclose(found[operation], own[operation], atol=2e-5, err_msg=operation)


def test_biases_are_one_more_key(parts, of_arms):
    query, key, value, layer = parts
    out = {arm.bias: rest for arm, rest in of_arms.items() if arm.operation == "softmax"}
    shape = (2, 1, H, D)
    with_one = lambda x, bias: jnp.concatenate([jnp.broadcast_to(bias, shape), x], axis=1)
    # A key in front that all see: position 0 of t + 1, of which the first query is dropped.
    queries = with_one(query, query[:, :1])
    keys = with_one(key, layer["key_bias"])
    for bias, extra in (("key", jnp.zeros((H, D))), ("key_value", layer["value_bias"])):
        wanted = attend(queries, keys, with_one(value, extra), mask=masks.causal())[:, 1:]
        np.testing.assert_allclose(out[bias][0], wanted, atol=1e-5)
        np.testing.assert_allclose(out[bias][1].sum(-1) + out[bias][2], 1, atol=1e-5)
        assert (out[bias][2] > 0).all()
    np.testing.assert_allclose(out["value"][0], out["none"][0] + layer["value_bias"], atol=1e-5)
    np.testing.assert_allclose(out["none"][2], 0, atol=1e-7)


def test_masks_and_the_first_token():
    near, shared = (network.visible(a, T) for a in (Arm(window=2), Arm(prefix=3)))
    np.testing.assert_array_equal(near, masks.sliding_window(2).dense(T, T)[0, 0])
    np.testing.assert_array_equal(shared, (masks.causal() | masks.prefix(3)).dense(T, T)[0, 0])
    sequences = jnp.arange(1, 8)[None]
    tokens, targets, asked = training.placed(Arm(first=2), sequences)
    assert tokens[0].tolist() == [1, 2, 0, 4, 5, 6]
    assert targets[0].tolist() == [2, 0, 4, 5, 6, 7]
    assert asked[0].tolist() == [True, False, True, True, True, True]
    assert training.placed(Arm(first=-1, prefix=3), sequences)[2][0].tolist()[:3] == [False] * 2 + [
        True
    ]


def test_equal_tokens_have_no_sink():
    """Identical tokens without positions: even attention, so that alpha_1 = H_T / T."""
    config, arm = toy(), Arm(positions="none")
    params = jax.jit(lambda key: network.init(key, config, 9))(jax.random.key(0))
    traced = jax.tree.map(lambda x: x[0], arrays([arm]))
    tokens = jnp.full((1, 8), 5)
    _, seen = jax.jit(lambda p, a: network.logits(p, config, a, tokens))(params, traced)
    alpha = importance(seen[0].weights)[0, 0, 0]
    np.testing.assert_allclose(alpha, (1 / np.arange(1, 9)).sum() / 8, rtol=1e-5)


def test_claims_of_what_is_as_the_paper_says(tmp_path):
    config = get_config()
    arms = emergence.all_arms(config)
    steps, shape = np.arange(0, 801, 50), (17, 2, len(arms))
    risen = (steps >= 400)[:, None, None, None]
    sink, bias = np.zeros((*shape, 4)), np.zeros(shape)
    for index, arm in enumerate(arms):
        none = arm.operation in ("sigmoid", "elu", "identity", "mlp", "mlp_norm")
        none |= arm.few or arm.window > 0 or arm.prefix > 0 or arm.decay == 5 or arm.rate < 1
        if arm.bias in ("key", "key_value"):
            bias[:, :, index] = 0.7
        elif not none:
            sink[:, :, index, max(arm.first, 0)] = 0.3 + 0.2 * (arm.decay == 0.5)
    loss = np.where(steps >= 100, 2.0, 3.0)[:, None, None] * np.ones(shape)
    noted = {"sink": sink * risen, "bias_sink": bias, "test": loss, "cosine": np.ones(shape)}
    noted["value_ratio"] = noted["key_ratio"] = np.full(shape, 0.5)
    noted["massive"] = np.array([2.0 - (a.operation == "sigmoid") for a in arms]) * np.ones(shape)
    trained = training.Trained(tuple(arms), steps, noted)
    claims = [
        *emergence._of_operations(trained, ""),
        *emergence._of_biases(trained),
        *emergence._of_places(config, trained),
        *emergence._of_training(config, trained),
        *emergence._of_signs(trained),
    ]
    assert [claim.id for claim in claims if not claim.holds] == []
    assert len({claim.id for claim in claims}) == len(claims) == 26
    with Run.open(tmp_path, config, name="sink_emergence") as run:
        emergence.figures.overview(run, trained)
        emergence.figures.emergence(run, trained, Arm())
        emergence.figures.by_position(run, np.array([0.6, 0.1, 0.0]))
        assert set(run.figures) == {"overview", "emergence", "trained_model"}
    noted["sink"][:] = noted["sink"].mean()
    unmoved = [c.id for c in emergence._of_places(config, trained) if c.holds]
    assert not {"K5-2", "K5-3", "K8-window", "K8-prefix"} & set(unmoved)


@pytest.mark.slow
def test_training_states_every_claim(tmp_path):
    config = toy(study="backcopy,text")
    with Run.open(tmp_path, config, name="sink_emergence") as run:
        claims = run_experiment(config, run)
        assert {"overview", "emergence", "text"} <= set(run.figures)
    ids = [claim.id for claim in claims]
    assert len(ids) == len(set(ids))
    assert {"K1-mlp", "K1-mlp-text", "K3-text", "K12", "K15"} <= set(ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "heads: expected dim=8 to be an even multiple of it, got 3"),
        ({"length": 4}, "length: expected at least 8 tokens, got 4"),
        ({"decays": (0.5, 0.0, 5.0)}, "decays: expected three, rising"),
        ({"rates": (2.0,)}, "rates: expected factors below 1"),
        ({"window": 8}, "window: expected 1 to 7 tokens, got 8"),
    ],
)
def test_bad_settings(tmp_path, change, message):
    config = toy(**change)
    with (
        Run.open(tmp_path, config, name="toy") as run,
        pytest.raises(UsageError, match=message),
    ):
        run_experiment(config, run)
    assert all(get_config(preset).study == "all" for preset in PRESETS)
