"""Programs of attention alone: cycles next to jax's flash attention, and whether they fit."""

import pytest

from experiments.tools.tpu_program import TpuProgram, compiles, cycles

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.slow,
    pytest.mark.libtpu,
]


@pytest.mark.parametrize(("backward", "goal"), [(False, 1.0), (True, 0.85)])
def test_no_more_cycles_than_jax_flash_attention(backward, goal):
    program = TpuProgram("v5e", 128, backward)
    ours, theirs = cycles(program), cycles(program._replace(flash=1024))
    assert ours is not None
    assert theirs is not None
    assert "attend_forward.1" in ours
    assert sum(ours.values()) <= goal * sum(theirs.values())


@pytest.mark.parametrize("chip", ["v5p", "tpu7x"])
def test_small_arrays_that_xla_keeps_on_the_chip_leave_room_for_kernels(chip):
    assert compiles(TpuProgram(chip, 128, True, length=4096, heads=1))
