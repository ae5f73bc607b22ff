"""Affine-scaled attention and the first token, at toy sizes: claims and a figure."""

import json
from typing import Any

import numpy as np
import pytest

from configs.affine_attention import PRESETS, get_config
from experiments.affine_attention import claims, run_experiment
from jattn.training import cli

TOY = {"dim": 8, "length": 8, "layers": 1, "steps": 2, "seeds": 2, "batch_size": 4, "test_size": 4}


def test_claims_of_given_results():
    plain = {"loss": [2.0, 2.0], "sink": [[0.1, 0.3], [0.2, 0.4]], "spread": [[0.0, 0.0]] * 2}
    affine = {"loss": [2.0, 2.04], "sink": [[0.1, 0.1], [0.2, 0.3]], "spread": [[0.1, 0.2]] * 2}
    rows: Any = {
        name: {field: np.array(value) for field, value in row.items()}
        for name, row in (("softmax_attention", plain), ("affine_attention", affine))
    }
    stated = {claim.id: claim for claim in claims(rows)}
    measured = {name: round(claim.measured, 6) for name, claim in stated.items()}
    assert measured == {"affine-sink": 0.7, "affine-loss": 0.02, "affine-varies": 0.1}
    assert stated["affine-sink"].seeds == pytest.approx([0.5, 5 / 6])
    assert not stated["affine-loss"].holds
    assert stated["affine-varies"].holds


@pytest.mark.slow
def test_two_steps_teach_nothing(tmp_path):
    argv = ["prog", f"--workdir={tmp_path}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{name}={value}" for name, value in TOY.items()]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="affine_attention", argv=argv)
    found = {claim["id"]: claim for claim in json.loads((tmp_path / "claims.json").read_text())}
    assert stopped.value.code == (0 if all(claim["holds"] for claim in found.values()) else 3)
    # Two steps lead nowhere: alpha is about what it is drawn as, and the loss that of guessing.
    assert found["affine-loss"]["measured"] < 0.3
    assert 0 < found["affine-varies"]["measured"] < 0.2
    assert (tmp_path / "figures" / "first_token.png").stat().st_size > 5_000


def test_presets():
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.steps > 0
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("huge")
