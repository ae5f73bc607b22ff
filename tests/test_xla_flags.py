"""XLA's faulty fusion is switched off by the import, or a line says why not."""

import subprocess
import sys

import pytest

from jattn import xla_flags

DELTA_RULE = """
import warnings
import numpy as np
keys = jax.random.split(jax.random.key(0), 4)
q, k, v = jax.random.normal(keys[0], (3, 2, 300, 2, 16))
k = k / jnp.linalg.norm(k, axis=-1, keepdims=True)
beta = jax.random.uniform(keys[1], (2, 300, 2))
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    run = lambda mode: jax.jit(lambda *a: jattn.recur(*a, beta=beta, mode=mode))(q, k, v)
    chunk, scan = run("chunk"), run("scan")
print([str(w.message)[:45] for w in seen if w.category is RuntimeWarning])
print(float(jnp.abs(chunk - scan).max()) < 1e-4)
"""


def fresh(script: str) -> str:
    """What a process prints that does not go through the command line or pytest."""
    done = subprocess.run(
        [sys.executable, "-c", script + DELTA_RULE],
        capture_output=True,
        text=True,
        check=True,
        env={"JAX_PLATFORMS": "cpu"},
    )
    return done.stdout


def test_whoever_imports_jattn_first_gets_right_numbers_and_no_warning():
    assert fresh("import jattn, jax, jax.numpy as jnp") == "[]\nTrue\n"


def test_where_jax_had_started_a_line_says_so():
    said = fresh("import jax, jax.numpy as jnp\njnp.ones(1)\nimport jattn")
    assert said.startswith("['recur: jax had started before `import jattn`,")


@pytest.fixture
def unset(monkeypatch):
    """The function as it is before its first call, without flags, as if jax had not started."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(xla_flags, "_jax_has_started", lambda: False)
    return xla_flags.disable_ynn_fusion.__wrapped__


def test_a_flag_is_added_to_those_that_are_there_once(unset, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    assert unset() is None
    flags = f"--xla_force_host_platform_device_count=2 --{xla_flags.YNN_FLAG}="
    assert xla_flags.os.environ["XLA_FLAGS"] == flags
    assert unset() is None
    assert xla_flags.os.environ["XLA_FLAGS"] == flags


def test_a_flag_that_a_compiler_lacks_is_said_and_left_out(unset, monkeypatch):
    monkeypatch.setattr(xla_flags, "YNN_FLAG", "xla_no_such_flag_of_any_version")
    assert "has no flag xla_no_such_flag_of_any_version" in unset()
    assert "XLA_FLAGS" not in xla_flags.os.environ
