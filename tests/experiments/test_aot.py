"""Planning: the experiments' paper presets compile for pods that are not there."""

import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from experiments.tools.chips import CHIPS, check_topology, price, roofline
from experiments.tools.libtpu import SETTINGS, environment
from jattn.flops import flops
from jattn.training import Parallel, Run, UsageError, run_studies
from jattn.training.hlo import Collective, moved
from jattn.training.planning import Planner, Program

pytestmark = pytest.mark.kernels


def aot(*arguments, timeout=900, cycles=False):
    return subprocess.run(
        [sys.executable, "-m", "experiments.aot", *arguments, *(["--cycles"] if cycles else [])],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.mark.libtpu
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
    assert "of HBM" in done.stdout
    if name == "in_context_regression":  # The batch is shared: gradients are averaged.
        assert "all-reduce" in done.stdout


@pytest.mark.slow
@pytest.mark.libtpu
def test_cycles_are_estimated_or_said_not_to_be():
    done = aot(
        "--config=configs/dynamical_systems.py:paper", "--topology=v5e:2x2", "--programs=1",
        cycles=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "of HBM" in done.stdout
    assert "estimated cycles" in done.stdout or "no Pallas kernel" in done.stdout


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v9:2x2", "aot: topology: expected a chip of v4, v5e, v5p, v6e, tpu7x and a grid"),
        pytest.param("v5e:3x5", "aot: topology: 'v5e:3x5' cannot be had", marks=pytest.mark.libtpu),
    ],
)
def test_a_topology_that_does_not_exist_is_one_clear_line(topology, message):
    done = aot("--config=configs/pavlovian.py", f"--topology={topology}")
    assert done.returncode == 2
    assert message in done.stderr


def on_one_device():
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.device_put(jnp.ones(4), replicated)


def test_a_program_that_cannot_be_printed_is_planned_without_its_collectives(monkeypatch):
    def refuse(self):
        raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure async-update")

    monkeypatch.setattr(jax.stages.Compiled, "as_text", refuse)
    planner = Planner(jax.devices(), 2)
    planner.compile("double", jax.jit(lambda x: 2 * x), on_one_device())
    (program,) = planner.programs
    assert program.collectives is None
    assert program.arguments == 16
    assert roofline(program, CHIPS["v5e"]).step == program.flops / 197e12


def test_a_program_that_comes_again_is_compiled_once():
    planner, x = Planner(jax.devices(), 1), on_one_device()
    for steps in (3, 4):  # no `Enough`: it is the same program
        planner.compile("double", jax.jit(lambda x: 2 * x), x, steps=steps)
    assert [(p.name, p.steps) for p in planner.programs] == [("double", 7)]


def test_a_study_that_depends_on_results_or_computes_for_long_is_left_for_the_next(tmp_path):
    def for_long(run, config):
        while True:
            sum(range(1000))

    def on_results(run, config):
        raise ZeroDivisionError

    def doubling(run, config):
        run.parallel.planner.compile("double", jax.jit(lambda x: 2 * x), x)
        return []

    planner, x = Planner(jax.devices(), 9, between=1), on_one_device()
    parallel = Parallel(planner=planner)
    studies = {"long": for_long, "results": on_results, "doubling": doubling}
    with Run.open(tmp_path, {}, name="example", parallel=parallel) as run:
        run_studies(run, SimpleNamespace(study="all"), studies)
    assert planner.left == {
        "long": "computes for 1 s without a program",
        "results": "depends on results",
    }
    assert [program.name for program in planner.programs] == ["double"]


def test_of_several_topologies_the_first_that_has_room_is_planned(monkeypatch):
    def plan(name, config, topology, *asked):
        if topology == "v5e:16x16":
            raise UsageError("neither seeds=4 nor batch_size=128 divides over the data axis of 256")
        if topology == "v5e:3x3":
            raise UsageError("topology: 'v5e:3x3' cannot be had")
        return Planner([], 1), True

    for name, value in SETTINGS.items():  # which the module makes, once it is imported
        monkeypatch.setenv(name, value)
    from experiments.aot import first_plan

    monkeypatch.setattr("experiments.aot.plan", plan)
    assert first_plan("toy", {}, ["v5e:16x16", "v5e:8x8", "v5e:3x3"])[0] == "v5e:8x8"
    with pytest.raises(UsageError, match="divides"):
        first_plan("toy", {}, ["v5e:16x16"])
    with pytest.raises(UsageError, match="cannot be had"):
        first_plan("toy", {}, ["v5e:3x3", "v5e:8x8"])


LOOP = """
%body.1 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %b = f32[8]{0} all-reduce(%x), replica_groups={{0,1},{2,3}}, to_apply=%add
}
%cond.1 (p: (s32[], f32[8])) -> pred[] {
  %c = s32[]{:T(128)} constant(5)
  %p.1 = (s32[], f32[8]{0}) parameter(0)
  %i = s32[]{:T(128)S(6)} get-tuple-element(%p.1), index=0
  ROOT %lt = pred[]{:T(512)S(1)} compare(%i, %i, %c), direction=LT
}
ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0:T(128)S(1)} parameter(0)
  %t = (s32[], f32[8]{0}) tuple(%a)
  %w = (s32[], f32[8]{0}) while(%t), condition=%cond.1, body=%body.1
  %q = (f32[8]{0}, f32[8]{0}) collective-permute-start(%a), channel_id=1
  %g = bf16[2,4]{1,0} all-gather(%a), replica_groups=[2,4]<=[8], dimensions={0}
  %s = (f32[16]{0}, u32[], token[]) send(%a), f={_xla_megascale_transfer_type="ALL_REDUCE"}
}
"""


def test_collectives_are_counted_by_kind_and_by_how_often_their_loop_runs():
    touched, found = moved(LOOP, devices=8, slices=2)
    assert found == [
        Collective("all-gather", 1, 16.0, 4, False),
        Collective("all-reduce", 5, 160.0, 2, False),
        Collective("all-reduce", 1, 64.0, 2, True),
        Collective("collective-permute", 1, 32.0, 8, False),
    ]
    # In the loop 32 bytes are read and 32 written; %a stays on the chip (S(1)), %s has 17 numbers.
    token = 1
    assert touched == 5 * 64 + 64 + 16 + (64 + 4) + token


def test_of_a_slice_in_a_loop_only_the_slice_is_read():
    def stacked(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((64, 64), (50, 64, 64))]
    text = jax.jit(stacked).lower(*shapes).compile().as_text()
    assert text is not None
    touched, _ = moved(text)
    once = 4 * 64 * 64
    assert 50 * 3 * once <= touched <= 50 * 10 * once  # and not 50 times all the weights


@pytest.mark.parametrize("times", [1, 7])
def test_operations_are_counted_with_the_lengths_of_loops(times):
    def loss(w, x):
        step = lambda x, _: (jnp.tanh(x @ w), None)
        return jnp.mean(jax.lax.scan(step, x, None, length=times)[0])

    w, x = jnp.ones((32, 32)), jnp.ones((16, 32))
    matmul = 2 * 16 * 32 * 32
    forward = flops(jax.make_jaxpr(loss)(w, x))
    both = flops(jax.make_jaxpr(jax.grad(loss))(w, x))
    assert times * matmul <= forward <= times * matmul * 1.1
    assert 3 * times * matmul <= both <= 3 * times * matmul * 1.1
    remade = jax.grad(jax.checkpoint(loss))
    assert flops(jax.make_jaxpr(remade)(w, x)) >= 4 * times * matmul
    if times == 1:  # without a loop the compiler counts the same
        counted = jax.jit(loss).lower(w, x).compile().cost_analysis()
        assert counted is not None
        assert counted["flops"] == pytest.approx(forward, rel=0.1)


def test_what_binds_a_step_is_the_longest_of_four_times():
    across = [Collective("all-reduce", 1, 25e9 / 8, 2, True)]
    program = Program("fit", 0, 0, 0, 197e12 / 2, 819e9 / 4, across, 10, 0.0)
    times = roofline(program, CHIPS["v5e"])
    assert times == (0.5, 0.25, 0.0, 1.0)
    assert (times.step, times.binds) == (1.0, "network")


def test_a_plan_has_a_price_only_where_the_table_has_one(tmp_path):
    assert price("v5e")[0] is None
    table = tmp_path / "prices.json"
    table.write_text('{"chips": {"v5e": {"usd_per_chip_hour": 1.5, "date": "2026-01-01"}}}')
    assert price("v5e", table) == (1.5, {"usd_per_chip_hour": 1.5, "date": "2026-01-01"})
    assert price("v5p", table)[0] is None
    for broken in ("{", "[]", '{"chips": {"v5e": {"usd_per_chip_hour": "dear"}}}'):
        table.write_text(broken)
        with pytest.raises(UsageError, match=r"prices: .* cannot be read"):
            price("v5e", table)


def test_topologies_are_checked_before_anything_is_compiled():
    assert check_topology("v6e:8x16") == ("v6e", [8, 16])
    for wrong in ("v9:2x2", "v5e", "v5e:", "v5e:4x", "v5e:0x4", "v5p:4x4"):
        with pytest.raises(UsageError, match="topology"):
            check_topology(wrong)


@pytest.mark.libtpu
def test_slices_are_joined_over_the_network():
    done = aot(
        "--config=in_context_regression:paper",
        "--config.study=isotropic",
        "--topology=v5e:4x4",
        "--slices=2",
        "--programs=1",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "x all-reduce over 2 slices" in done.stdout
    assert "of 32 chips" in done.stdout
    assert "--topology=v5e:4x4 --slices=2 --target=gke" in done.stdout
