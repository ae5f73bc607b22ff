"""What methods about sinks promise: limits, conserved quantities, planted sinks."""

import jax
import jax.numpy as jnp
import numpy as np

from jattn import lens
from jattn.lens.methods.attention_calibration import attention_calibration, calibration_edit
from jattn.lens.methods.attention_magnets import filtered_heatmap, redirected
from jattn.lens.methods.content_filter import content_only, map_similarity, noncontent_share
from jattn.lens.methods.method import example_maps, example_model
from jattn.lens.methods.secondary_sinks import find_sinks
from jattn.lens.methods.sink_report import sink_report
from jattn.lens.methods.visual_redistribution import qualifying_rows, visual_redistribution
from jattn.lens.methods.zero_tuning import next_token_entropy, zero_tuning
from jattn.lens.readouts import massiveness
from jattn.lens.sinks import importance

T = 8


@jax.enable_x64(False)
def made():
    maps = example_maps(jax.random.key(0), 2, 3, T, T)
    # A second sink, at key 4 of every head.
    logits = jnp.log(jnp.maximum(maps, 1e-30)).at[..., 4].add(1.5)
    seen = jnp.tril(jnp.ones((T, T), bool))
    planted = jax.nn.softmax(jnp.where(seen, logits, -jnp.inf), -1)
    tokens = jax.random.randint(jax.random.key(1), (1, T), 0, 11)
    return maps, planted, example_model(jax.random.key(0)), tokens


MAPS, PLANTED, MODEL, TOKENS = made()


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


def test_calibration_scales_sinks_and_keeps_ratios():
    after = attention_calibration(PLANTED, keep=0.4, threshold=0.2)
    sinks = importance(PLANTED) > 0.2
    sinks &= jnp.cumsum(sinks, -1) > 1
    assert sinks.any()
    taken = jnp.broadcast_to(sinks[..., None, :], PLANTED.shape)
    rest = jnp.where(taken, 0, PLANTED).sum(-1)
    some = rest > 0  # rows with all their weight on sinks stay
    near(jnp.where(taken & some[..., None], after - 0.4 * PLANTED, 0), 0)
    ratio = jnp.where(~taken & (PLANTED > 0), after / PLANTED, jnp.nan)
    near(jnp.nanmax(ratio, -1), jnp.nanmin(ratio, -1), 1e-5)
    near(attention_calibration(PLANTED, keep=0.0, threshold=0.99), PLANTED)
    only = attention_calibration(PLANTED, threshold=0.2, heads=jnp.array([True, False, False]))
    np.testing.assert_array_equal(only[:, 1:], PLANTED[:, 1:])
    # The edit of one head in one layer leaves the maps of others before it.
    edit = calibration_edit(lens.heads_of([(1, 0)], 2, 4), threshold=0.05)
    found = lens.run(MODEL, TOKENS, edits=[edit], record=("probs",))[1]["probs"]
    plain = lens.run(MODEL, TOKENS, record=("probs",))[1]["probs"]
    near(found[0], plain[0])
    near(found[1, :, 1:], plain[1, :, 1:])
    assert np.abs(found[1, :, 0] - plain[1, :, 0]).max() > 1e-3


def test_zero_tuning_is_a_lever_on_the_first_key():
    maps_of = lambda gamma: lens.run(
        MODEL, TOKENS, edits=[zero_tuning(jnp.full((2, 4), gamma), T)], record=("probs",)
    )[1]["probs"][0]
    plain, raised, none = maps_of(1.0), maps_of(3.0), maps_of(1e-30)
    first = plain[..., :1]
    factor = jnp.where(jnp.arange(T) == 0, 3.0, 1.0)
    near(raised, plain * factor / (2 * first + 1), 1e-6)
    near(raised[:, :, 0], plain[:, :, 0])  # row 0 sees nothing else
    near(none[:, :, 1:, 0], 0)
    others = lambda p: p[:, :, 1:, 1:] / p[:, :, 1:, 1:].sum(-1, keepdims=True)
    near(others(raised), others(plain), 1e-5)
    near(next_token_entropy(jnp.zeros((1, 1, 8))), np.log(8))


def test_redistribution_moves_weight_onto_the_span():
    hidden = jax.random.normal(jax.random.key(2), (2, T, 64)).at[:, jnp.array([0, 4]), 3].set(60.0)
    span = (jnp.arange(T) >= 3) & (jnp.arange(T) < 7)
    dims, options = jnp.array([3]), dict(tau=7.0, min_mass=0.1, rho=0.9)
    after = visual_redistribution(PLANTED, hidden, span, dims, **options)
    sinks = massiveness(hidden, dims) >= 7.0
    assert sinks[0].tolist() == [index in (0, 4) for index in range(T)]
    rows = qualifying_rows(PLANTED, sinks, span, rho=0.9, min_mass=0.1)
    assert rows.any()
    assert not rows.all()
    np.testing.assert_array_equal(after[~rows], PLANTED[~rows])
    mass = lambda p: jnp.where(span, p, 0).sum(-1)
    assert (mass(after) >= mass(PLANTED) - 1e-6).all()
    neither = jnp.array([1, 2, 7])
    np.testing.assert_array_equal(after[..., neither], PLANTED[..., neither])
    # A token becomes a sink when enough of token 0 is added to it.
    more = hidden.at[:, 2].add(20 * hidden[:, 0])
    assert (massiveness(more, dims)[:, 2] >= 7.0).all()


def test_planted_secondary_sinks_are_found():
    layers, born, lives = 12, 5, 5
    base = jnp.tril(jnp.ones((T, T))) / jnp.arange(1, T + 1)[:, None]
    maps = jnp.broadcast_to(base, (layers, 3, T, T))
    sink = jnp.zeros((T, T)).at[:, 5].set(0.6)
    mixed = jnp.where(jnp.arange(T)[:, None] >= 5, 0.4 * base + sink, base)
    on = (jnp.arange(layers) >= born) & (jnp.arange(layers) < born + lives)
    maps = jnp.where(on[:, None, None, None], mixed, maps)
    resid = jax.random.normal(jax.random.key(3), (layers, T, 16))
    resid = resid.at[:, 5].set(2 * resid[:, 0])
    found = find_sinks(maps, resid, threshold=0.5)
    assert (int(found.birth[5]), int(found.lifetime[5])) == (born, lives)
    near(found.alpha[5], importance(mixed)[5], 1e-6)
    near(found.cosine[5], 1, 1e-5)
    assert found.birth[1:5].tolist() == [-1] * 4
    assert found.lifetime[1:5].tolist() == [0] * 4
    assert (
        find_sinks(jnp.broadcast_to(base, maps.shape), resid, threshold=0.5).birth[1:] < 0
    ).all()
    again = find_sinks(maps[:, ::-1], resid, threshold=0.5)
    jax.tree.map(np.testing.assert_array_equal, again, found)


def test_the_content_filter():
    content = jnp.array([False, True, True, False, True, True, True, True])
    once = content_only(MAPS, content)
    near(content_only(once, content), once)
    assert not once[..., 1:, jnp.array([0, 3])].any()
    share = noncontent_share(MAPS, content)
    assert ((share >= 0) & (share <= 1)).all()
    near(map_similarity(MAPS, MAPS), 1, 1e-5)
    weight = content.astype(jnp.float32)[None, None, None, None]
    found = lens.run(MODEL, TOKENS, edits=[lens.KeyReweight(weight)], record=("probs",))[1]["probs"]
    plain = lens.run(MODEL, TOKENS, record=("probs",))[1]["probs"]
    near(found[0, :, :, 1:], content_only(plain[0], content)[:, :, 1:])
    logs = jnp.log(jnp.where(once > 0, once, 1))
    assert (-(once * logs).sum(-1) <= jnp.log(content.sum()) + 1e-6).all()


def test_magnets():
    blob = jnp.exp(-((jnp.arange(20) - 5.0) ** 2) / 4)
    noise = 0.3 * jnp.exp(-((jnp.arange(20) - 14.0) ** 2) / 4)
    columns = [20 + 3.0 * jnp.arange(20), blob, blob + 0.01, jnp.full(20, 0.3), noise]
    maps = jnp.stack(columns, 1) / 80.0  # the rest of each row is on a token that is not shown
    content = jnp.array([True, True, True, False, False])
    heat = filtered_heatmap(maps, content)
    assert heat.min() == 0
    assert heat.max() == 1
    target = blob > 0.5
    raw = maps[:, :3].mean(-1)
    top = lambda x: x >= jnp.sort(x)[-int(target.sum())]
    meet = lambda x: (top(x) & target).sum() / (top(x) | target).sum()
    assert meet(heat) > meet(raw)
    moved = redirected(maps, ~content)
    near(moved.sum(-1), maps.sum(-1))
    near(moved[:, 0], 0)
    near(moved[:, 1:3], maps[:, 1:3])
    # A constant column more or less is nothing once it is scaled.
    none = filtered_heatmap(jnp.stack([blob, blob], 1), jnp.ones(2, bool))
    near(none, (blob - blob.min()) / (blob.max() - blob.min()))


def test_a_report_on_a_planted_sink():
    record = ("probs", "resid_pre", "k", "v")
    found = lens.run(MODEL, TOKENS, record=record)[1]
    first = jnp.zeros_like(found["probs"]).at[..., 0].set(1.0)
    value = found["v"].at[:, :, 0].multiply(0.01)
    report = sink_report(first, found["resid_pre"], found["k"], value)
    near(report["alpha"], 1)
    near(report["kept"], 1)
    assert report["sink_rate"] == 1
    assert (report["value_norm"] < 0.1).all()
