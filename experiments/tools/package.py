"""Builds the package and tries it where there is no checkout.

    python -m experiments.tools.package                  an sdist, and a wheel made of it, in dist/
    python -m experiments.tools.package --dependencies   the same; dependencies are installed, too

The wheel goes into a fresh virtual environment, which borrows the dependencies of this one unless
they are installed from the index, and a program there uses every part from an empty folder.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

from experiments.flags import Parser

ROOT = Path(__file__).parents[2]
# Runs in the new environment, isolated: neither the folder nor PYTHONPATH lead to a checkout.
SMOKE = """
import importlib.metadata, importlib.resources, pathlib, sys
import jax, jax.numpy as jnp
import jattn
assert pathlib.Path(jattn.__file__).is_relative_to(sys.prefix), jattn.__file__
assert jattn.__version__ == importlib.metadata.version("jattn") == sys.argv[1]
x = jax.random.normal(jax.random.key(0), (1, 6, 2, 4))
given = dict(mask=jattn.masks.causal(), implementation="reference")
difference = jattn.attend(x, x, x, mask=jattn.masks.causal()) - jattn.attend(x, x, x, **given)
assert abs(difference).max() < 1e-5
for part in jattn.__dir__():
    getattr(jattn, part)
for name in jattn.zoo.names(kind="mixer"):
    causal = not jattn.zoo.info(name).bidirectional
    mixer = jattn.zoo.make(name, dim=8, heads=2, causal=causal)
    jax.eval_shape(mixer.init, jax.random.key(0))
files = importlib.resources.files
assert files("jattn").joinpath("py.typed").is_file()
assert files("jattn.attention").joinpath("block_table.json").is_file()
print("jattn", jattn.__version__, "works from", pathlib.Path(jattn.__file__).parent)
"""


def repository() -> str:
    """The address of the repository: the one setting, `Repository` of pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return settings["project"]["urls"]["Repository"].rstrip("/")


def version() -> str:
    """The version, as `jattn/__init__.py` has it."""
    found = re.search(r'^__version__ = "(.+?)"', (ROOT / "jattn/__init__.py").read_text(), re.M)
    assert found is not None
    return found[1]


def build(folder: Path, *, isolated: bool = True) -> Path:
    """Builds an sdist, and a wheel from it, into a folder; returns the wheel.

    Args:
        folder: what is in it is removed.
        isolated: setuptools is installed for it, as pip does; else that of this environment serves.
    """
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "build", "--outdir", str(folder)]
    subprocess.run(
        [*command, *([] if isolated else ["--no-isolation"]), str(ROOT)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    [wheel] = folder.glob("*.whl")
    [_] = folder.glob("*.tar.gz")
    return wheel


def try_out(wheel: Path, *, dependencies: bool = False) -> str:
    """Installs a wheel in a new environment and uses it outside the checkout; what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        install = [python, "-I", "-m", "pip", "install", "--quiet", str(wheel)]
        subprocess.run([*install, *([] if dependencies else ["--no-deps"])], check=True)
        if not dependencies:
            # Only a path: editable packages there, this one too, are found by hooks that it skips.
            [own] = Path(folder).glob("lib/python*/site-packages")
            (own / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        empty = Path(folder) / "empty"
        empty.mkdir()
        commands = [
            [python, "-I", "-c", SMOKE, version()],
            [python, "-I", "-m", "experiments.pavlovian", "--help"],
        ]
        said = [
            subprocess.run(command, cwd=empty, check=True, text=True, stdout=subprocess.PIPE).stdout
            for command in commands
        ]
    return said[0]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    parser = Parser("package", __doc__)
    parser.add_argument("--dependencies", action="store_true", help="install them from the index")
    given = parser.parse_args(argv)
    wheel = build(ROOT / "dist")
    print(try_out(wheel, dependencies=given.dependencies), end="")
    print(f"dist/{wheel.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
