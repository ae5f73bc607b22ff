"""What a run says of its speed, and the profile of some of its steps."""

import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType

from jattn.training import Parallel, Run, cli
from jattn.training.goodput import KINDS, Goodput
from jattn.training.parallel import Layout
from jattn.training.speed import Speed, peak_flops


def test_speeds_goodput_and_a_profile(tmp_path, toy, capsys):
    argv = ["toy", f"--config={toy.__file__.replace('experiment', 'config')}"]
    argv += [f"--workdir={tmp_path}", "--config.steps=60", "--profile=7"]
    with pytest.raises(SystemExit, match="0"):
        cli.main(toy.run_experiment, name="toy", argv=argv)
    said = capsys.readouterr().out
    assert f"line: profile of steps 10 to 17: xprof --logdir={tmp_path / 'profile'}" in said
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    (line,) = [line for line in said.splitlines() if line.startswith("goodput: ")]
    assert "% compilation" in line
    speeds = [json.loads(text) for text in (tmp_path / "timings.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in speeds][:2] == [10, 20]  # not that which was profiled
    for entry in speeds:
        # Two seeds, sixteen examples each.
        assert entry["examples_a_second"] == pytest.approx(32 / entry["seconds_a_step"])
        assert "model_flops_utilisation" not in entry  # the peak of a CPU is not known
    session = json.loads((tmp_path / "provenance.json").read_text())[-1]
    assert sum(session["goodput"].values()) == pytest.approx(1, abs=0.01)
    assert session["goodput"].keys() == {*KINDS, "everything else"}
    assert "cpu device(s)" in session["spread"]


def layout_of_two(strategy, split):
    mesh = jax.make_mesh((2, 1), ("data", "model"), (AxisType.Auto,) * 2, devices=jax.devices()[:2])
    return Layout(strategy, mesh, split)


def test_utilisation_is_the_share_of_the_peak(tmp_path, monkeypatch):
    peak = peak_flops("TPU v5 lite")
    assert peak is not None
    monkeypatch.setattr("jattn.training.speed.peak_flops", lambda kind: peak)

    def program(state, start, stop):
        return jax.lax.fori_loop(start, stop, lambda _, x: x @ x, state)

    found = []
    with Run.open(tmp_path, {}, name="toy", parallel=Parallel()) as run:
        run.log_speed = lambda step, name, scalars: found.append(scalars)
        shape = jax.ShapeDtypeStruct((64, 64), jnp.float32)
        speed = Speed(run, "fit", 8, layout_of_two("jit", "seeds"), program, shape)
        with speed.of(0, 4) as stop:
            assert stop == 4
    (numbers,) = found
    expected = 2 * 64**3 / (2 * peak) / numbers["seconds_a_step"]
    assert numbers["model_flops_utilisation"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("strategy", ["jit", "shard_map", "pmap"])
@pytest.mark.parametrize("split", ["seeds", "batch"])
def test_operations_are_those_of_all_devices_however_they_are_spread(strategy, split):
    layout = layout_of_two(strategy, split)

    def program(state, start, stop):
        here = layout.draw(jax.random.uniform, jax.random.key(0), 8)

        def step(_, x):
            products = jax.vmap(lambda scale: scale * x @ x)(here)
            return layout.mean(products.sum(0))

        return jax.lax.fori_loop(start, stop, step, state)

    found = layout.flops(program, jax.ShapeDtypeStruct((64, 64), jnp.float32))
    # Eight products of 64 x 64 matrices, and little that is elementwise.
    assert 1 <= found / (8 * 2 * 64**3) < 1.05


def test_shares_of_a_clock_sum_to_one():
    goodput = Goodput()
    with goodput.of("checkpoints"):
        pass
    assert sum(goodput.shares().values()) == pytest.approx(1)
