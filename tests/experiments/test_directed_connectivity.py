"""The experiment at toy sizes: its network, its tests, its texts, its refusals."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.directed_connectivity import PRESETS, get_config
from experiments.directed_connectivity import run_experiment
from experiments.directed_connectivity.common import LINKS, OFF, TRUE, coefficients, name
from experiments.directed_connectivity.network import discoveries, exact, shifted
from experiments.directed_connectivity.text import follow, measured, more_alike
from jattn.training import cli

TOY = [
    "network.seeds=2", "network.surrogates=199", "network.long=1500", "network.frequencies=9",
    "groups.repetitions=2", "groups.permutations=299", "text.seeds=1", "text.permutations=199",
]  # fmt: skip


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="directed_connectivity", argv=argv)
    return stopped.value.code


def test_claims_and_figures(tmp_path):
    status = run_toy(tmp_path)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert status == (0 if all(c["holds"] for c in claims.values()) else 3)
    for sure in ("granger-links", "ddtf-absent", "mixing", "weaker-link", "quotes", "topics"):
        assert claims[sure]["holds"], claims[sure]
    assert "26.36" in claims["quotes"]["note"]
    assert claims["mixing"]["measured"] > 0.03
    for figure in ("links", "mixing", "groups", "text"):
        assert (tmp_path / "figures" / f"{figure}.png").stat().st_size > 5_000
        assert (tmp_path / "figures" / f"{figure}.png").stat().st_size < 300_000


def test_the_network_is_what_it_is_said_to_be():
    links = (coefficients() != 0).any(0) & OFF
    np.testing.assert_array_equal(links, TRUE)
    assert {name(link) for link in LINKS} == {"0 -> 1", "1 -> 2", "0 -> 3", "2 -> 3"}
    truth = exact(get_config().network)
    assert (truth["pdc"][OFF & ~TRUE] == 0).all()
    p = np.where(TRUE, 1e-4, 0.9)[None]
    np.testing.assert_array_equal(discoveries(p)[0], TRUE)


def test_shifts_keep_each_channel_and_lose_their_order():
    series = jnp.stack([jnp.arange(50.0)] * 3, 1)
    found = np.asarray(shifted(jax.random.key(0), series))
    for channel in found.T:
        np.testing.assert_array_equal(np.sort(channel), np.arange(50))
        assert set(np.diff(channel).tolist()) <= {1.0, -49.0}
    assert len({channel[0] for channel in found.T}) == 3


def test_texts():
    table = follow("a b c a b d a b c")
    words, counts = table["a", "b"]
    assert dict(zip(words, counts.tolist(), strict=True)) == {"c": 2, "d": 1}
    config: Any = get_config()
    sizes = config.text
    sizes.update({"documents": 4, "permutations": 19, "temperatures": (0.05, 3.0)})
    found = measured(sizes, 0)
    assert found["overlap"][0] > found["overlap"][1]  # cold texts are alike
    assert found["vendi"][0] < found["vendi"][1]
    rng = np.random.default_rng(0)
    same, apart = [["a", "b", "c"]] * 6, [[f"{i}{j}" for j in range(3)] for i in range(6)]
    gap, p = more_alike(same, apart, rng, 199)
    assert gap == 1
    assert p < 0.02
    assert more_alike(apart, same, rng, 199)[1] > 0.9


def test_bad_settings(tmp_path, capsys):
    for setting, message in (
        ("network.length=50", "network.length: expected more than 72, got 50"),
        ("groups.weakened=1.5", "groups.weakened: expected 0 to 1, got 1.5"),
        ("text.writer=me", "text.writer: expected one of words, smollm2, got 'me'"),
        ("text.temperatures=(1.0,0.5)", "text.temperatures: expected two rising numbers"),
        ("text.documents=1", "text.documents: expected at least 2, got 1"),
    ):
        assert run_toy(tmp_path, setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.network.seeds > 1
