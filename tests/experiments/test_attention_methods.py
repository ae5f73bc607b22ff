"""The experiment at toy sizes: parts, claims, resuming, bad settings."""

import pytest

from configs.attention_methods import PARTS, PRESETS, get_config
from experiments.attention_methods import RUN, run_experiment
from jattn.training import Run, UsageError


def test_every_part_has_a_function_and_settings():
    assert set(RUN) == set(PARTS)
    assert all(part in get_config(preset) for part in PARTS for preset in PRESETS)


def test_bad_part(tmp_path):
    config = get_config()
    config.part = "nothing"
    with (
        Run.open(tmp_path, config, name="toy") as run,
        pytest.raises(UsageError, match="part: expected"),
    ):
        run_experiment(config, run)
