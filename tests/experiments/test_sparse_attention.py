"""The experiment at toy sizes: every study states its claims, and its samplers say what they do."""

from typing import Any

import jax
import numpy as np
import pytest

from configs.sparse_attention import PRESETS, get_config
from experiments.sparse_attention import STUDIES, run_experiment
from experiments.sparse_attention.images import BLOCK, bars, marks
from experiments.sparse_attention.made_keys import BLOCK as TOKENS
from experiments.sparse_attention.made_keys import KEPT, SIGMA, _centre
from experiments.sparse_attention.tokens import chats
from jattn.mechanisms.sparse.token_budget_attention import budget
from jattn.training import Run, UsageError


def toy(**changes) -> Any:
    config: Any = get_config()
    few = {"dim": 8, "heads": 2, "steps": 2, "batch_size": 2}
    config.update(
        {
            "draws": 2, "grid": 16, "chats": (2, 4), "parallel": {"mesh": {"data": 1}},
            "routing": few | {"vocabulary": 8, "length": 17, "clusters": 2, "window": 4},
            "turns": few | {"vocabulary": 32, "pairs": 4, "questions": 2},
            "landmarks": few | {"vocabulary": 16, "length": 24, "pairs": 3, "block": 6},
            "halos": few, "connectivity": few | {"predictor_steps": 2},
            "lines": {"dim": 8, "steps": 2, "batch_size": 2}, **changes,
        }
    )  # fmt: skip
    for name in ("routing", "turns", "landmarks", "halos", "connectivity", "lines"):
        config[name].update(steps=10)
    config.connectivity.predictor_steps = 10
    return config


def test_bounds_of_tiles_are_the_simulators(tmp_path):
    config = toy(study="tiles")
    with Run.open(tmp_path, config, name="sparse_attention") as run:
        claims = {claim.id: claim for claim in run_experiment(config, run)}
    assert claims["bound-video-strided"].note == "11.11 against 12.1"
    assert claims["bound-image"].note == "6.65 against 6.0"
    assert claims["whole-image-strided"].holds
    assert claims["aligned-pairs"].holds


def test_a_trained_study_states_its_claims(tmp_path):
    config = toy(study="lines")
    with Run.open(tmp_path, config, name="sparse_attention") as run:
        claims = run_experiment(config, run)
    assert len(claims) == 2
    assert len(claims[0].seeds or ()) == 2


@pytest.mark.slow
def test_studies_state_their_claims(tmp_path):
    config = toy(study=",".join(STUDIES))
    with Run.open(tmp_path, config, name="sparse_attention") as run:
        claims = run_experiment(config, run)
    ids = [claim.id for claim in claims]
    assert len(ids) == len(set(ids))
    assert {"rectified", "budget-stride", "recycled-mass", "leak", "instructions-stay"} <= set(ids)
    assert {"routed-local", "landmarks-fetch", "halo-crosses", "connectivity-near"} <= set(ids)
    for name in ("blocks", "tokens", "instructions", "landmarks", "tiles_stride_1"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


def test_samplers_say_what_they_do():
    keys = jax.random.split(jax.random.key(0), 64)
    image, label = jax.vmap(marks)(keys)
    places = np.nonzero(np.asarray(image).reshape(64, -1))[1].reshape(64, 2)
    row, column = np.divmod(places, 16)
    np.testing.assert_array_equal(row[:, 0], row[:, 1])
    np.testing.assert_array_equal(np.diff(column)[:, 0], 2 + np.asarray(label))
    assert (column[:, 0] // BLOCK != column[:, 1] // BLOCK).all()

    clear, place = jax.vmap(bars)(keys)
    sums = np.take_along_axis(np.asarray(clear).sum(2), np.asarray(place, int)[:, None], 1)
    assert sums.mean() == pytest.approx(6, abs=0.5)  # noise of 2 a row, 64 draws

    chat = chats(16, 4, 2)(jax.random.key(1))
    pairs = dict(zip(chat.tokens[:8:2].tolist(), chat.tokens[1:8:2].tolist(), strict=True))
    assert chat.is_answer.astype(int).tolist() == [0] * 8 + [0, 1, 0, 1]
    assert [pairs[int(k)] for k in chat.tokens[8::2]] == chat.tokens[9::2].tolist()


def test_a_budget_keeps_the_share_that_is_wanted():
    shares = budget(TOKENS, _centre(TOKENS, SIGMA, KEPT), SIGMA)
    assert (shares * 2.0 ** np.arange(5)).sum() / TOKENS == pytest.approx(KEPT)


def test_bad_settings(tmp_path):
    for index, (change, message) in enumerate(
        (
            ({"draws": 1}, "draws: expected at least 2, got 1"),
            ({"turns": {"pairs": 8}}, "turns.vocabulary: expected at least 34, got 32"),
            ({"routing": {"heads": 3}}, "routing.heads: expected an even divisor of dim 8, got 3"),
        )
    ):
        config = toy()
        config.update(change)
        with (
            Run.open(tmp_path / str(index), config, name="toy") as run,
            pytest.raises(UsageError, match=message),
        ):
            run_experiment(config, run)
    assert all(get_config(preset).study == "all" for preset in PRESETS)
