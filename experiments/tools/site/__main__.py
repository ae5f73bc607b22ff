"""The command line of the site; see the package."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jattn
from experiments.flags import Parser
from experiments.tools import package, site
from experiments.tools.site import gallery, llms, mechanisms, playground, reference, sources

ROOT = sources.ROOT
HERE = Path(__file__).parent


def write_sources(folder: Path, *, notebooks: bool, runs: Path | None) -> None:
    """Writes all that Sphinx reads into an empty folder."""
    static = folder / "_static"
    shutil.copytree(HERE / "static", static, dirs_exist_ok=True)
    shutil.copy(HERE / "conf.py", folder)
    sources.write_docs(folder)
    pages = mechanisms.pages(static) | reference.pages()
    names = sources.write_notebooks(folder, execute=notebooks)
    pages |= {"notebooks/index.md": gallery.notebooks(names)}
    pages |= {"gallery.md": gallery.page(static, runs)}
    for name, text in pages.items():
        sources.write(folder / name, sources.turned(text, name))
    (static / "playground.html").write_text(playground.page())


def build(folder: Path, out: Path) -> int:
    """Has Sphinx make the site; warnings are errors. Returns its exit status."""
    settings = {"JATTN_VERSION": jattn.__version__, "JATTN_REPOSITORY": package.repository()}
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-j", "2", "-b", "html"]
    done = subprocess.run([*command, str(folder), str(out)], env=os.environ | settings)
    return done.returncode


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the sources and builds the site."""
    parser = Parser("tools.site", site.__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="where the site goes")
    parser.add_argument("--notebooks", action="store_true", help="run the notebooks of colab/")
    parser.add_argument("--runs", type=Path, help="finished runs, as `reproduce` leaves them")
    given = parser.parse_args(argv)
    if given.runs is not None and not (given.runs / "index.html").is_file():
        parser.error(f"--runs: expected a folder with index.html, got {given.runs}")
    with tempfile.TemporaryDirectory() as folder:
        # Sphinx leaves things beside its output, too.
        texts, html = Path(folder) / "sources", Path(folder) / "html"
        texts.mkdir()
        write_sources(texts, notebooks=given.notebooks, runs=given.runs)
        if status := build(texts, html):
            return status
        shutil.copytree(html, given.out, dirs_exist_ok=True)
    llms.write(given.out)
    print(f"site: {given.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
