"""Patching: nothing is 0, everything is 1, paths by hand, and first order near the truth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jattn import lens
from jattn.lens.edges import circuit_of_edges, edge_attribution
from jattn.lens.patching import (
    activation_patching,
    attribution_patching,
    over_edits,
    patch,
    path_patching,
)
from jattn.nn import Llama, LlamaConfig

V, T, L, H, M = 13, 6, 2, 4, 16
CONFIG = LlamaConfig(vocab_size=V, dim=M, layers=L, heads=H, kv_heads=2, hidden=24)


@jax.enable_x64(False)
def made():
    model = Llama(CONFIG, rngs=nnx.Rngs(0))
    clean, corrupt = jax.random.randint(jax.random.key(0), (2, 1, T), 0, V)
    return model, clean, corrupt


MODEL, CLEAN, CORRUPT = made()
ALL = jnp.ones((L, H), bool)


def metric(logits):
    return logits[0, -1, 3] - logits[0, -1, 5]


def near(a, b, tolerance=2e-5):
    np.testing.assert_allclose(a, b, atol=tolerance)


def test_patching_everything_is_one_and_units_have_their_shapes():
    streams = activation_patching(MODEL, CLEAN, CORRUPT, metric, site="resid_pre", unit="layer")
    near(streams[0], 1)
    heads = activation_patching(MODEL, CLEAN, CORRUPT, metric, batch_size=3)
    assert heads.shape == (L, H)
    places = activation_patching(MODEL, CLEAN, CORRUPT, metric, site="z", unit="head_position")
    assert places.shape == (L, T, H)
    values = activation_patching(MODEL, CLEAN, CORRUPT, metric, site="v", unit="position")
    assert values.shape == (L, T)
    value = lens.run(MODEL, CLEAN, record=("z",))[1]["z"]
    one = patch(MODEL, CORRUPT, value, lens.heads_of([(1, 2)], L, H))
    least, most = metric(MODEL(CORRUPT)), metric(MODEL(CLEAN))
    near(heads[1, 2], (metric(one) - least) / (most - least))
    none = patch(MODEL, CORRUPT, value, ~ALL)
    near(none, MODEL(CORRUPT))


def test_paths():
    one_hot = jnp.eye(L * H, dtype=bool).reshape(-1, L, H)
    same = path_patching(MODEL, CLEAN, CLEAN, metric, one_hot)
    near(same, 0)
    # All heads, direct to the end, with MLPs frozen: what they add is linear, the norm aside.
    direct = path_patching(MODEL, CLEAN, CORRUPT, metric, one_hot, freeze_mlps=True)
    table = MODEL.arrays()["embed"]
    clean = lens.run(MODEL, CLEAN, record=("z", "resid_post"))[1]
    corrupt = lens.run(MODEL, CORRUPT, record=("z",))[1]
    output = MODEL.arrays()["layers"]["output"].reshape(L, H, -1, M)
    moved = jnp.einsum("lhd,lhdm->lhm", (corrupt["z"] - clean["z"])[:, 0, -1], output)
    last = clean["resid_post"][-1, 0, -1] + moved.reshape(-1, M)
    logits = (last / jnp.sqrt((last**2).mean(-1, keepdims=True) + CONFIG.eps)) @ (
        table[3] - table[5]
    )
    base = metric(MODEL(CLEAN))
    near(direct, (logits - base) / base, 1e-4)
    # Heads of the last layer reach no query.
    late = path_patching(MODEL, CLEAN, CORRUPT, metric, one_hot, receivers=ALL, site="q")
    near(late[H:], 0)
    assert np.abs(late[:H]).max() > 1e-4


def test_attribution_is_complete_with_many_steps_and_near_the_effects_of_heads():
    clean, corrupt = CLEAN, CORRUPT
    scores = attribution_patching(MODEL, clean, corrupt, metric)
    assert scores.shape == (L, H)
    near(attribution_patching(MODEL, clean, clean, metric), 0)
    # Of the embeddings' nodes, with many steps, the scores sum to the whole difference.
    many = attribution_patching(MODEL, clean, corrupt, metric, site="resid_pre", steps=64)
    near(many[0], metric(MODEL(corrupt)) - metric(MODEL(clean)), 0.02)
    # Where the way is integrated, scores are near what replacing a head in the clean text does.
    value = lens.run(MODEL, corrupt, record=("z",))[1]["z"]
    one_hot = jnp.eye(L * H, dtype=bool).reshape(-1, L, H)
    base = metric(MODEL(clean))
    true = jnp.stack([metric(patch(MODEL, clean, value, heads)) - base for heads in one_hot])
    close = attribution_patching(MODEL, clean, corrupt, metric, steps=8).reshape(-1)
    assert np.corrcoef(close, true)[0, 1] > 0.9


def test_in_batches_as_all_together(plain_checks):
    double = lambda x: 2 * x
    near(over_edits(double, jnp.arange(5.0), batch_size=2), 2 * jnp.arange(5.0))
    with pytest.raises(ValueError, match="unit: expected one without heads at mlp_out, got 'head'"):
        activation_patching(MODEL, CLEAN, CORRUPT, metric, site="mlp_out")
    with pytest.raises(ValueError, match=r"corrupt: expected shape \[b=1, t=6\], got \[1, 5\]"):
        activation_patching(MODEL, CLEAN, CORRUPT[:, :5], metric)


def test_edges_sum_to_nodes_and_circuits_are_pruned():
    edges = edge_attribution(MODEL, CLEAN, CORRUPT, metric, steps=3)
    place = {part: index for index, part in enumerate(edges.senders)}
    # With the same steps, a gradient is the sum over the ways that it takes.
    nodes = attribution_patching(MODEL, CLEAN, CORRUPT, metric, steps=3)
    heads = jnp.array([[place["head", l, h] for h in range(H)] for l in range(L)])
    near(edges.scores.sum(1)[heads], nodes, 1e-4)
    mlps = attribution_patching(MODEL, CLEAN, CORRUPT, metric, site="mlp_out", steps=3)
    near(edges.scores.sum(1)[jnp.array([place["mlp", l, -1] for l in range(L)])], mlps, 1e-4)
    # Nothing goes back, and a circuit has no loose ends.
    late = [index for index, part in enumerate(edges.senders) if part[1] == L - 1]
    early = [index for index, part in enumerate(edges.receivers) if part[1] < L - 1]
    assert not edges.scores[jnp.array(late)][:, jnp.array(early)].any()
    none = edges._replace(scores=jnp.zeros_like(edges.scores))
    assert not circuit_of_edges(none, 5, L, H).any()
    receivers = {part: index for index, part in enumerate(edges.receivers)}
    way = none.scores.at[0, receivers["query", 0, 1]].set(3.0)
    way = way.at[place["head", 0, 1], receivers["end", L, -1]].set(-2.0)
    way = way.at[place["head", 1, 2], receivers["end", L, -1]].set(1.0)  # nothing reaches it
    found = circuit_of_edges(none._replace(scores=way), 5, L, H)
    assert [tuple(pair) for pair in np.argwhere(found).tolist()] == [(0, 1)]
