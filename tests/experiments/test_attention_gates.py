"""Gates at toy sizes: claims of made accuracies, what a gate leaves, bad settings."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs.attention_gates import PRESETS, get_config
from experiments.attention_gates import run_experiment
from experiments.attention_gates.dispersion import GatedMean, _claims
from experiments.classifier_arms import accuracies, entries_of, init_of, loss_of, models_of
from experiments.functional import as_functions
from jattn.nn import BaseNet, BaseNetConfig
from jattn.training import cli

TOY = [
    "seeds=2", "dispersion.length=8", "dispersion.channels=4", "dispersion.steps=2",
    "dispersion.batch_size=4", "dispersion.test=16", "imagery.electrodes=2", "imagery.length=24",
    "imagery.filters=2", "imagery.width=3", "imagery.window=4", "imagery.stride=2",
    "imagery.features=4", "imagery.taps=3", "imagery.final=4", "imagery.steps=2",
    "imagery.batch_size=4", "imagery.test=16",
]  # fmt: skip


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="attention_gates", argv=argv)
    return stopped.value.code


@pytest.mark.slow
def test_both_studies(tmp_path):
    status = run_toy(tmp_path, "gates=none,se,srm")
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert set(claims) == {"dispersion", "majority", "imagery-learns", "imagery-gates"}
    assert status == (0 if all(c["holds"] for c in claims.values()) else 3)
    assert "srm +" in claims["imagery-gates"]["note"] or "srm -" in claims["imagery-gates"]["note"]
    for name in ("dispersion", "imagery"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


def test_verdicts_of_made_accuracies():
    low, high = np.array([0.64, 0.65]), np.array([0.99, 0.97])
    config: Any = get_config()
    names = [name for name, _ in entries_of(config.gates)]
    found = {name: high if name in ("gct", "srm", "cbam") else low for name in names}
    claims = {claim.id: claim for claim in _claims(found, 8)}
    assert {id: claim.verdict for id, claim in claims.items()} == dict.fromkeys(
        ("dispersion", "maximum", "majority"), "holds"
    )
    np.testing.assert_allclose(np.array(claims["dispersion"].seeds), [0.35, 0.32])
    claims = {claim.id: claim for claim in _claims(dict.fromkeys(names, high), 8)}
    assert {claim.verdict for claim in claims.values()} == {"fails"}


def test_arms_do_not_know_of_each_other():
    """The gradient of one is the same alone and beside another."""
    make = lambda gate: as_functions(lambda rngs: GatedMean(gate, 4, rngs=rngs))
    config: Any = get_config()
    config.gates = "se,srm"
    both = models_of("gates", config.gates, make)
    params = init_of(both)(jax.random.key(0))
    batch = jax.random.normal(jax.random.key(1), (6, 5, 4)), jnp.arange(6) % 2
    grads = jax.grad(loss_of(both), has_aux=True)(params, batch)[0]
    alone = {"srm": both["srm"]}
    own = jax.grad(loss_of(alone), has_aux=True)({"srm": params["srm"]}, batch)[0]
    for one, other in zip(grads["srm"], own["srm"], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    found = accuracies(both, jax.tree.map(lambda leaf: leaf[None], params), *batch)
    guesses = both["se"].module(params["se"])(batch[0]).argmax(-1)
    np.testing.assert_allclose(found["se"], [(guesses == batch[1]).mean()])


def test_the_network_reads_recordings():
    config = BaseNetConfig(classes=3, electrodes=2, length=24, filters=2, width=3, window=4,
                           stride=2, features=4, taps=3, final=4, gate="srm")  # fmt: skip
    model = BaseNet(config, rngs=nnx.Rngs(0))
    series = jax.random.normal(jax.random.key(0), (5, 24, 2))
    assert model(series).shape == (5, 3)
    before = np.asarray(model.norms[0].mean[...])
    kept, dropped = (model(series, training=True, key=key) for key in (None, jax.random.key(1)))
    assert np.abs(kept - dropped).max() > 1e-3
    assert np.abs(model.norms[0].mean[...] - before).max() > 0
    with pytest.raises(ValueError, match="gate: expected a gate, got 'simpool', a pool"):
        BaseNetConfig(classes=3, gate="simpool")
    with pytest.raises(ValueError, match="dropout: expected less than 1, got 1"):
        BaseNetConfig(classes=3, dropout=1.0)
    assert BaseNetConfig(classes=3).tokens == 62  # the paper's


def test_a_filter_along_time_is_a_convolution():
    config = BaseNetConfig(classes=2, electrodes=1, length=16, filters=1, width=4, window=4,
                           stride=2, features=2, taps=3, final=2)  # fmt: skip
    from jattn.nn.base_net import _windows

    series = jax.random.normal(jax.random.key(0), (1, 16, 1))
    taps = jax.random.normal(jax.random.key(1), (config.width,))
    ours = _windows(series, config.width)[0, :, 0] @ taps
    full = np.convolve(series[0, :, 0], taps[::-1])
    np.testing.assert_allclose(ours, full[2:18], rtol=1e-5)


def test_bad_settings(tmp_path, capsys):
    for setting, message in (
        ("gates=none,senet", "gates: senet"),
        ("gates=simpool", "gates: simpool"),
        ("imagery.length=4", "imagery.length: expected at least 10 for one last mean, got 4"),
        ("study=eeg", "study: expected any of dispersion, imagery or all"),
    ):
        study = "imagery" if setting.startswith("imagery") else "dispersion"
        extra = [setting] if setting.startswith("study") else [setting, f"study={study}"]
        assert run_toy(tmp_path, *extra) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
    assert [get_config(preset).seeds for preset in PRESETS] == [2, 5, 5]
