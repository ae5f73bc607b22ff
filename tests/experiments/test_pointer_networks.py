"""Pointer networks at toy sizes: scores of known answers, claims of made scores, bad settings."""

import json
from typing import Any

import numpy as np
import pytest

from configs.pointer_networks import PRESETS, get_config
from experiments.pointer_networks import run_experiment
from experiments.pointer_networks.hulls import _ceiling, _claims, _sets
from experiments.pointer_networks.triangles import triangle_scores
from jattn.tasks.planar import before_stop, delaunay_triangles
from jattn.training import cli

TOY = [
    "hulls.fewest=3", "hulls.most=4", "hulls.sizes=(4,6)", "hulls.dim=4", "hulls.steps=2",
    "hulls.batch_size=4", "hulls.test=4", "triangles.points=4", "triangles.examples=8",
    "triangles.dim=4", "triangles.steps=2", "triangles.batch_size=4", "triangles.test=4",
    "tours.points=5", "tours.examples=8", "tours.dim=4", "tours.steps=2", "tours.batch_size=4",
    "tours.test=4",
]  # fmt: skip


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="pointer_networks", argv=argv)
    return stopped.value.code


@pytest.mark.slow
def test_all_studies(tmp_path):
    status = run_toy(tmp_path)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert set(claims) == {
        "coverage-4", "coverage-6", "more-points", "new-sizes-6", "triangles-coverage",
        "triangles-accuracy", "tour-length", "tour-valid", "best-length",
    }  # fmt: skip
    assert status == (0 if all(c["holds"] for c in claims.values()) else 3)
    assert claims["tour-length"]["measured"] >= 0  # no tour is shorter than the best
    assert not claims["triangles-accuracy"]["holds"]  # after two steps
    for name in ("hulls", "drawn_hulls", "triangles", "tours"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


def test_tours_are_never_shorter_than_the_best(tmp_path):
    run_toy(tmp_path, "study=tours")
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert claims["tour-length"]["measured"] >= 0
    assert 0 <= claims["tour-valid"]["measured"] <= 1


def test_triangles_count_whatever_their_order():
    points = np.random.default_rng(0).random((6, 2))
    true = delaunay_triangles(points)
    turned = true[::-1, [2, 0, 1]].ravel()
    stop = np.zeros(4, int)
    assert triangle_scores(np.append(turned, stop), true.ravel()) == (1, 1)
    accuracy, coverage = triangle_scores(turned[3:], true.ravel())
    assert accuracy == 0
    assert coverage == pytest.approx(1 - 1 / len(true))
    more = np.append(turned, [1, 1, 1])
    assert triangle_scores(more, true.ravel()) == (0, 1)


def test_sets_of_one_size_and_what_a_vocabulary_could_write():
    points, targets = _sets(0, 12, 64)
    assert points.shape == (64, 12, 2)
    hulls = [set(before_stop(target)) for target in targets]
    assert _ceiling(targets, 12) == 1
    assert _ceiling(targets, 8) == np.mean([max(hull) <= 8 for hull in hulls])


def test_verdicts_of_made_scores():
    scores = {5: (0.8, 0.99, 0.0), 10: (0.6, 0.985, 0.01), 15: (0.4, 0.981, 0.05)}
    found = {str(n): np.array([row]) for n, row in scores.items()}
    claims = {c.id: c for c in _claims(found, [5, 10, 15], 10, {5: 1.0, 10: 1.0, 15: 0.1})}
    assert list(claims) == ["hull-5", "hull-10", "coverage-5", "coverage-10", "coverage-15",
                            "more-points", "new-sizes-15"]  # fmt: skip
    assert all(claim.holds for claim in claims.values())
    assert claims["more-points"].measured == pytest.approx(0.2)
    assert claims["coverage-15"].note == "0.050 of the outputs are not simple"
    found["10"] = np.array([[0.85, 0.97, 0.0]])
    failing = {c.id for c in _claims(found, [5, 10, 15], 10, {5: 1, 10: 1, 15: 0.5}) if not c.holds}
    assert failing == {"coverage-10", "more-points", "new-sizes-15"}


def test_bad_settings(tmp_path, capsys):
    for setting, message in (
        ("hulls.fewest=2", "hulls.fewest: expected 3 to hulls.most=4, got 2"),
        ("tours.points=21", "tours.points: expected at most 20"),
        ("triangles.points=2", "triangles.points: expected at least 3, got 2"),
        ("study=knots", "study: expected any of hulls, triangles, tours or all"),
    ):
        assert run_toy(tmp_path, setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
    configs: Any = [get_config(preset) for preset in PRESETS]
    assert [config.hulls.steps for config in configs] == [4_000, 12_000, 78_000]
