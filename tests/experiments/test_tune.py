"""The tiles that are chosen, from estimates made up for the test; and what is said of bad flags."""

import json
import os
import subprocess
import sys

import pytest

from experiments.libtpu import SETTINGS

# In a process of its own: several experiments have a flag --only.
SCRIPT = """
import json, sys
from experiments import tune

def cycles(program):
    query, key, part, back_query, back_key, back_part = program.blocks
    if query == 2048:  # The estimator broke down.
        return None
    return {
        "attend_forward.1": 1000 - part // 2, "copy": 5,
        "attend_backward.1": {128: 98, 256: 100, 512: 110}[back_part] + back_key // back_query,
    }

tune.cycles = cycles
tune.compiles = lambda program: program.chip == "v5e"
counted = []
for chip in ("v5e", "v6e"):
    print(json.dumps(tune.choose(chip, 64, "window", lambda: counted.append(1))))
assert len(counted) == 2 * tune.COMPILATIONS
"""


def run(*command):
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | SETTINGS,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_what_saves_enough_and_fits_is_chosen():
    done = run("-c", SCRIPT)
    assert done.returncode == 0, done.stderr[-2000:]
    chosen, default = (json.loads(line) for line in done.stdout.splitlines())
    # 13 % forward is taken, 2 % backward is not.
    assert (chosen["query"], chosen["key"], chosen["key_part"]) == (1024, 1024, 512)
    assert chosen["backward_key_part"] == 256
    assert chosen["forward cycles"] == [744, 872]
    assert chosen["backward cycles"] == [101, 101]
    # What does not fit the chip is left at the defaults.
    assert default["key_part"] == 256
    assert default["forward cycles"] == [872, 872]


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--chips=v9", "tune: --chips: no chip 'v9'"), ("--only=512", "no class has 512")],
)
def test_bad_flags_are_one_clear_line(flag, message):
    done = run("-m", "experiments.tune", flag)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
