"""Estimated cycles (static) against jax's flash attention, where the goal is met."""

import importlib.util

import pytest

from experiments.tpu_program import TpuProgram, cycles

pytestmark = [pytest.mark.kernels, pytest.mark.slow]


@pytest.mark.parametrize(("backward", "goal"), [(False, 1.05), (True, 0.9)])
def test_no_more_cycles_than_jax_flash_attention(backward, goal):
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("needs libtpu: pip install 'jattn[tpu]'")
    program = TpuProgram("v5e", 128, backward)
    ours, theirs = cycles(program), cycles(program._replace(flash=1024))
    assert ours is not None
    assert theirs is not None
    assert "attend_forward.1" in ours
    assert sum(ours.values()) <= goal * sum(theirs.values())
