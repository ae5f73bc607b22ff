"""The package: light to import, one version, and it works where there is no checkout."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import jattn
from experiments.tools import package

ROOT = Path(__file__).parents[1]


def loaded_by(statement: str) -> set[str]:
    """The modules that a statement loads in a new process, beyond those of jax."""
    program = (
        "import sys, jax; before = set(sys.modules)\n"
        f"{statement}\nprint(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_jattn_loads_nothing_of_it_but_what_sets_xlas_flags():
    own = {name for name in loaded_by("import jattn") if name.partition(".")[0] == "jattn"}
    assert own == {"jattn", "jattn.xla_flags"}


def test_the_engines_load_without_flax_optax_or_kernels():
    loaded = loaded_by("import jattn; jattn.attend, jattn.recur, jattn.masks")
    assert {"jattn.attention", "jattn.recurrence"} <= loaded
    heavy = ("flax", "optax", "orbax", "matplotlib", "scipy", "jattn.mechanisms", "jattn.pallas")
    assert not {name for name in loaded if name.startswith(heavy)}
    assert "jax.experimental.pallas" not in loaded


def test_every_public_name_is_there():
    for name in dir(jattn):
        assert getattr(jattn, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'attent'"):
        jattn.attent  # noqa: B018  # type: ignore[attr-defined]


def test_the_version_has_one_place():
    assert package.version() == jattn.__version__
    assert f"\nversion: {jattn.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    settings = (ROOT / "pyproject.toml").read_text()
    assert 'version = { attr = "jattn.__version__" }' in settings
    assert f'"{jattn.__version__}"' not in settings


@pytest.mark.slow
def test_the_package_works_outside_the_checkout(tmp_path):
    if importlib.util.find_spec("build") is None:
        pytest.skip("needs the package build, as extra dev has it")
    if int(importlib.metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("needs setuptools >= 77, as extra dev has it")
    wheel = package.build(tmp_path / "dist", isolated=False)
    assert f"jattn {jattn.__version__} works" in package.try_out(wheel)
