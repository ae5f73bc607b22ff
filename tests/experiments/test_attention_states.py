"""The experiment at toy sizes: its policy, its classifiers, its page."""

import json
import shutil
import subprocess
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.attention_states import PRESETS, get_config
from experiments.attention_states import classifiers, page, run_experiment
from experiments.attention_states.policy import acted_on, wizard
from experiments.attention_states.world import beliefs, streams, switches
from jattn.systems import attention_states as states
from jattn.training import Run, cli
from tests.browser import needs_chromium, said_in_browser

TOY = [
    "windows=40", "policy_episodes=3", "train_episodes=4", "test_episodes=3", "steps=2", "dim=8",
    "heads=2", "layers=1", "batch_size=2",
]  # fmt: skip


def run_toy(folder, *extra):
    argv = ["prog", f"--workdir={folder}", "--config.parallel.mesh.data=1"]
    argv += [f"--config.{setting}" for setting in (*TOY, *extra)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(run_experiment, name="attention_states", argv=argv)
    return stopped.value.code


@pytest.fixture(scope="module")
def stream():
    return streams(jax.random.key(0), 20, 120)


def test_beliefs_and_hysteresis(stream):
    truth, belief = np.asarray(stream.states), beliefs(stream)
    right = lambda found: (found == truth).mean()
    one, all_ = belief.memoryless.argmax(-1), belief.filtered.argmax(-1)
    held = acted_on(belief.filtered, np.asarray(stream.breakpoint), None)
    assert right(all_) > right(one) + 0.08
    assert right(held) > right(all_) - 0.05
    assert switches(truth) - 3 < switches(held) < switches(all_) < switches(one)


def test_a_wizard_who_never_slips_is_only_late(stream):
    truth, breaks = np.asarray(stream.states), np.asarray(stream.breakpoint)
    perfect = wizard(jax.random.key(0), truth, breaks, 0.0, None)
    slipping = wizard(jax.random.key(0), truth, breaks, 0.2, None)
    np.testing.assert_array_equal(perfect[:, 0], truth[:, 0])
    assert (perfect[:, 1:] == truth[:, :-1]).mean() > 0.85  # states of one window are held for two
    assert abs((slipping != perfect).mean() - 0.2) < 0.04


@pytest.mark.slow
def test_classifiers_are_compared_with_the_filter(tmp_path):
    assert run_toy(tmp_path, "study=learned") in (0, 3)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert claims["nothing-above"]["measured"] < 0.05
    assert {"attention-filter", "one-window", "attention-stacked"} <= set(claims)
    assert (tmp_path / "figures" / "accuracy.png").stat().st_size > 5_000


def test_the_policy_writes_claims_figures_and_the_page(tmp_path):
    assert run_toy(tmp_path, "study=policy") in (0, 3)
    claims = {c["id"]: c for c in json.loads((tmp_path / "claims.json").read_text())}
    assert claims["wizard-chance"]["holds"]
    assert {"wizard", "hysteresis-flicker", "bayes-filter"} <= set(claims)
    for figure in ("episode", "confusion"):
        assert (tmp_path / "figures" / f"{figure}.png").stat().st_size > 5_000
    text = (tmp_path / page.NAME).read_text()
    assert "const DATA = " in text
    for outside in ("http:", "https:", "src=", "@import", "fetch("):
        assert outside not in text


@pytest.mark.slow
def test_without_scikit_learn_there_are_no_trees(tmp_path, monkeypatch):
    monkeypatch.setattr(classifiers, "trees", lambda *_: {})
    config: Any = get_config()
    config.update({"windows": 40, "train_episodes": 4, "test_episodes": 3, "steps": 2, "dim": 8})
    config.update({"layers": 1, "batch_size": 2, "parallel": {"mesh": {"data": 1}}})
    with Run.open(tmp_path, config, name="toy") as run:
        claims = classifiers.learned(run, config)
    assert [claim.id for claim in claims] == ["attention-filter", "nothing-above"]
    assert "pip install 'jattn[data]'" in claims[0].note


def test_windows_are_stacked_behind_each_other():
    x = np.arange(8.0).reshape(1, 4, 2)
    found = classifiers.stacked(x, 2)
    assert np.isnan(found[0, 0, :2]).all()
    np.testing.assert_array_equal(found[0, 1:, :2], x[0, :-1])
    np.testing.assert_array_equal(found[0, :, 2:], x[0])


@pytest.mark.parametrize("protect", [None, 2])
def test_the_pages_policy_is_the_librarys(stream, protect):
    """Its script is run by node, on all episodes."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    belief, breaks = beliefs(stream), np.asarray(stream.breakpoint)
    options = {"on": 0.5, "off": 0.35, "dwell": 2, "protect": protect}
    data = page.data_of(stream, belief, options)
    rounded, script = belief.filtered.round(4), page.page_of(data)
    policy = script.split("// policy: begin")[1].split("// policy: end")[0]
    cases = [{"b": b, "k": k} for b, k in zip(rounded.tolist(), breaks.tolist(), strict=True)]
    program = f"""{policy}
    const cases = {json.dumps(cases)}, options = {json.dumps(options)};
    const tables = {json.dumps(data["patterns"])};
    const states = cases.map((c) => hysteresis(c.b, c.k, options));
    const patterns = [-1, 1].map((a) => [0, 1, 2, 3].map((s) => patternOf(s, a, tables)));
    console.log(JSON.stringify({{ states, patterns }}));"""
    done = subprocess.run([node, "-"], input=program, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    np.testing.assert_array_equal(found["states"], acted_on(rounded, breaks, protect))
    for arousal, rows in zip((-1.0, 1.0), found["patterns"], strict=True):
        wanted = states.patterns(jnp.arange(4), jnp.full(4, arousal))
        np.testing.assert_array_equal(rows, wanted)


def test_bad_settings(tmp_path, capsys):
    for setting, message in (
        ("heads=3", "heads: expected a divisor of dim=8, got 3"),
        ("windows=10", "windows: expected at least 40, got 10"),
        ("slips=1.0", "slips: expected 0 to 1, got 1.0"),
        ("study=everything", "study: expected any of policy, learned or all, got 'everything'"),
    ):
        assert run_toy(tmp_path, setting) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset: expected one of"):
        get_config("tiny")
    for preset in PRESETS:
        config: Any = get_config(preset)
        assert config.steps > 0


MOVES = """
  const $ = id => page.getElementById(id), time = $("time");
  said.first = $("where").textContent;
  time.value = time.max;
  time.dispatchEvent(new view.Event("input"));
  $("override").children[3].click();
  said.last = $("where").textContent;
  said.pressed = page.querySelector("[aria-pressed=true]").textContent;
  said.bars = $("belief").children.length;
  said.does = $("does").querySelectorAll("dd").length;
"""


@needs_chromium
@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_works_in_a_browser(tmp_path, stream, width):
    belief = beliefs(stream)
    options = {"on": 0.5, "off": 0.35, "dwell": 2, "protect": None}
    text = page.page_of(page.data_of(stream, belief, options))
    said = said_in_browser(tmp_path, text, width, MOVES)
    assert int(said["overflow"]) <= 0
    last = len(stream.states[0])
    begins = page.STATES[int(belief.filtered[0, 0].argmax())]
    assert said["first"] == f"Window 1 of {last}: {begins}"
    assert said["last"] == f"Window {last} of {last}: {page.STATES[2]} (overruled)"
    assert said["pressed"] == page.STATES[2]
    assert (said["bars"], said["does"]) == ("4", "5")
