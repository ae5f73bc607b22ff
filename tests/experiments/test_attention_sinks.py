"""Gates and sinks at toy sizes: claims, a figure, and the weight of the first token."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.attention_sinks import PRESETS, get_config
from experiments.attention_sinks import run_experiment
from experiments.attention_sinks.gates import VARIANTS, first_token_weight
from experiments.attention_sinks.one_head import STRETCHES
from jattn.attention.positions import rotary
from jattn.training import Run

ROWS = ("softmax", "gate_by_head")


def claims_of(study, folder, monkeypatch):
    monkeypatch.delitem(VARIANTS, "gate by element")
    sizes = dict(vocabulary=8, length=8, dim=8, layers=1, steps=2, batch_size=4, test_size=8)
    config: Any = get_config()
    config.update(sizes | {"parallel": {"mesh": {"data": 1}}, "one_head": {"steps": 2}})
    config.study = study
    with Run.open(folder, config, name="toy") as run:
        return {claim.id: claim for claim in run_experiment(config, run)}


def test_gates_and_sinks(tmp_path, monkeypatch):
    claims = claims_of("gates", tmp_path, monkeypatch)
    # Two steps leave the gates where they begin, at sigmoid(0), and the loss at that of guessing.
    closed, loss = claims["gate-by-head-closed"], claims["gate-by-head-loss"]
    assert closed.measured == pytest.approx(0.5, abs=0.02)
    assert closed.predicted == 0.5
    with_gate, without = (float(x) for x in re.findall(r"[0-9.]+", loss.note))
    assert with_gate == pytest.approx(np.log(8), abs=0.5)
    assert loss.measured == pytest.approx(abs(with_gate - without), abs=1e-3)
    assert (tmp_path / "figures" / "sinks.png").stat().st_size > 5_000


@pytest.mark.slow
def test_one_head(tmp_path, monkeypatch):
    claims = claims_of("one_head", tmp_path, monkeypatch)
    rows = {name: np.load(tmp_path / "arrays" / f"one_head_{name}.npz") for name in ROWS}
    plain, gated = rows["softmax"], rows["gate_by_head"]
    # After two steps the head looks at all tokens alike: 1 / i is the first one's share.
    forms, sink = claims["one-head-forms"], claims["one-head-gate-by-head-sink"]
    shares = 1 / np.arange(1, 9)
    assert shares.min() < forms.measured < shares[1:].mean() + 0.1
    assert not forms.holds
    assert sink.predicted == pytest.approx(forms.measured / 2)
    length = claims["one-head-gate-by-head-length"]
    assert plain["stretches"].shape == (2, STRETCHES)
    # The first stretch is what the loss at the length of training is measured on.
    np.testing.assert_allclose(plain["stretches"][:, 0], plain["loss"], rtol=1e-5)
    assert length.measured == pytest.approx(gated["stretches"][:, 1].mean())
    assert length.predicted == pytest.approx(plain["stretches"][:, 1].mean())
    for name in ("sink_of_one_head", "length_of_one_head"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


def test_the_weight_of_the_first_token_is_that_of_softmax():
    x = jax.random.normal(jax.random.key(0), (1, 5, 4))
    params = {name: jnp.eye(4) for name in ("query", "key", "value")}
    turned = rotary(x[:, :, None])[0, :, 0]
    scores = jnp.where(jnp.tri(5, dtype=bool), turned @ turned.T / 2, -jnp.inf)
    found = first_token_weight(params, x, 1)[0, :, 0]
    np.testing.assert_allclose(found, jax.nn.softmax(scores)[:, 0], rtol=1e-5)


def test_presets():
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.steps > 0
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
