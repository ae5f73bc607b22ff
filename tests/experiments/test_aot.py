"""Planning: the experiments' paper presets compile for pods that are not there."""

import importlib.util
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from experiments.libtpu import SETTINGS
from jattn.training.planning import Planner, collectives

pytestmark = pytest.mark.kernels


def aot(*arguments, timeout=900, cycles=False):
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("needs libtpu: pip install 'jattn[tpu]'")
    return subprocess.run(
        [sys.executable, "-m", "experiments.aot", *arguments, *([] if cycles else ["--nocycles"])],
        env=os.environ | SETTINGS,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.mark.parametrize(
    ("name", "topology", "strategy"),
    [
        ("dynamical_systems", "v5e:16x16", "jit"),
        pytest.param("in_context_regression", "v5e:16x16", "jit", marks=pytest.mark.slow),
        pytest.param("in_context_regression", "v5p:2x2x4", "shard_map", marks=pytest.mark.slow),
        pytest.param("scan_and_snap", "v5e:16x16", "shard_map", marks=pytest.mark.slow),
        pytest.param("pavlovian", "v5e:16x16", "jit", marks=pytest.mark.slow),
        pytest.param("random_feature_attention", "v5e:16x16", "jit", marks=pytest.mark.slow),
    ],
)
def test_paper_presets_compile_for_pods(name, topology, strategy):
    done = aot(
        f"--config=configs/{name}.py:paper",
        f"--topology={topology}",
        f"--strategy={strategy}",
        "--programs=1",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "of memory" in done.stdout
    if name == "in_context_regression":  # The batch is shared: gradients are averaged.
        assert "all-reduce" in done.stdout


@pytest.mark.slow
def test_cycles_are_estimated_or_said_not_to_be():
    done = aot(
        "--config=configs/dynamical_systems.py:paper", "--topology=v5e:2x2", "--programs=1",
        cycles=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "of memory" in done.stdout
    assert "estimated cycles" in done.stdout or "no Pallas kernel" in done.stdout


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v9:2x2", "aot: topology: expected a chip of v4, v5e, v5p, v6e, tpu7x and a grid"),
        ("v5e:3x5", "aot: topology: 'v5e:3x5' cannot be had"),
    ],
)
def test_a_topology_that_does_not_exist_is_one_clear_line(topology, message):
    done = aot("--config=configs/pavlovian.py", f"--topology={topology}")
    assert done.returncode == 2
    assert message in done.stderr


def test_a_program_that_cannot_be_printed_is_planned_without_its_collectives(monkeypatch):
    def refuse(self):
        raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure async-update")

    monkeypatch.setattr(jax.stages.Compiled, "as_text", refuse)
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
    x = jax.device_put(jnp.ones(4), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    planner = Planner(jax.devices(), 2)
    planner.compile("double", jax.jit(lambda x: 2 * x), x)
    assert planner.programs[0].collectives is None
    assert planner.programs[0].arguments == 16


def test_collectives_are_counted_by_kind():
    text = """
    %p = (f32[8]{0}, f32[8]{0}) collective-permute-start(%x), channel_id=1
    %a = bf16[2,4]{1,0} all-gather(%y), dimensions={0}
    %b = bf16[2,4]{1,0} all-gather(%z), dimensions={0}
    """
    assert collectives(text) == {"collective-permute": (1, 64), "all-gather": (2, 32)}
