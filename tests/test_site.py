"""The site: pages come from the zoo and the code, links lead somewhere, cards filter."""

import doctest
import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import jattn
from experiments.tools import docs
from experiments.tools.site import kernels, llms, markdown, mechanisms, reference, sources
from experiments.tools.site.__main__ import main
from tests.browser import needs_chromium, said_in_browser

NAMES = jattn.zoo.names()
SAMPLE = ("pointer_network", "retention", "simpool", "squeeze_excitation")


@pytest.fixture(scope="module")
def found():
    return reference.modules()


@pytest.mark.parametrize("module", [markdown, sources], ids=lambda module: module.__name__)
def test_examples_of_the_generator_hold(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted
    assert not outcome.failed


def test_the_reference_has_what_packages_export(found):
    listed = {id(symbol.value) for module in found.values() for symbol in module.symbols}
    for name in ("attention", "attention.masks", "lens", "nn", "training", "testing", "losses"):
        package = importlib.import_module(f"jattn.{name}")
        for export in package.__all__:
            value = getattr(package, export)
            if inspect.isfunction(value) or inspect.isclass(value):
                assert id(value) in listed, f"{name}.{export}"
    for name in NAMES:
        entry = jattn.zoo.info(name)
        assert id(entry.make) in listed, name
        assert id(entry.core) in listed, name


def test_the_reference_names_symbols_as_they_are_imported(found):
    for path, module in found.items():
        for symbol in module.symbols:
            package, _, name = symbol.path.rpartition(".")
            assert package == path
            assert getattr(importlib.import_module(module.value.__name__), name) is symbol.value
            assert (symbol.value.__doc__ or "").strip(), symbol.path


def test_a_symbol_is_shown_with_its_signature_arguments_and_example(found):
    [symbol] = [s for s in found["jattn"].symbols if s.path == "jattn.attend"]
    mask = next(s for s in found["jattn.masks"].symbols if s.path == "jattn.masks.Mask")
    text = reference.symbol_text(symbol, {id(mask.value): mask.path})
    assert text.startswith("``````{py:function} jattn.attend(query: Float[Array, 'b t h d'], ")
    assert "**Raises**\n\n- `ValueError`: an argument does not fit" in text
    assert "```pycon\n>>> import jattn" in text
    assert "```text\nscore_ij  = scale * <q_i, k_j>" in text


@pytest.mark.parametrize(
    "name",
    [n if n in SAMPLE else pytest.param(n, marks=pytest.mark.slow) for n in NAMES],
)
def test_the_example_of_a_mechanism_runs(name):
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    example = parser.get_doctest(mechanisms.example(name), {}, name, None, None)
    assert len(example.examples) == 6
    assert runner.run(example).failed == 0


def test_kernels_are_read_off_the_program():
    assert kernels.kernels_of("softmax_attention") == ["attend_forward"]
    assert kernels.kernels_of("retention") == ["recur_forward"]
    assert kernels.kernels_of("gated_mlp") == []


def test_a_page_says_what_the_entry_says():
    entry, path = jattn.zoo.info("retention"), docs.ROOT / "tests" / "test_site.py"
    text = mechanisms.page(
        entry,
        oracles={path: 3},
        golden=1,
        cost=mechanisms.costs()["retention"],
        found=["recur_forward"],
        about=mechanisms.experiments_about().get(entry.arxiv, []),
    )
    for said in (entry.title, entry.equation, "arxiv.org/abs/2307.08621", "`recur_forward`"):
        assert said in text
    assert "- 3 oracles in [test_site.py](../../tests/test_site.py)" in text
    assert "- 1 golden case: " in text
    assert "{bdg-primary-line}`streaming`" in text


def test_links_lead_to_files():
    for path in sorted((docs.ROOT / "docs").glob("*.md")):
        for target, _ in sources.LINK.findall(path.read_text()):
            made_by_the_site = (target == "gallery.md", target.startswith("_static/"))
            assert any(made_by_the_site) or (path.parent / target).exists(), (path.name, target)


def test_links_to_the_repository_have_its_address(monkeypatch):
    monkeypatch.setattr(sources.package, "repository", lambda: "https://example.org/me/it")
    text = "[a](../jattn/zoo.py), [b](../configs), [c](masks.md#a), [d](https://e.org)"
    turned = sources.turned(text, "linen.md")
    assert "](https://example.org/me/it/blob/main/jattn/zoo.py)" in turned
    assert "](https://example.org/me/it/tree/main/configs)" in turned
    assert "[c](masks.md#a), [d](https://e.org)" in turned
    assert sources.colab_badge("lens") == ""  # Colab opens what is on GitHub.
    monkeypatch.setattr(sources.package, "repository", lambda: "https://github.com/me/it.git")
    assert "/github/me/it/blob/main/colab/lens.ipynb" in sources.colab_badge("lens")


def test_the_page_for_language_models_lists_everything():
    text = llms.text()
    for name in (*NAMES, *(guide.removesuffix(".md") for guide in docs.GUIDES)):
        assert f"{name}.html)" in text


def test_bad_flags_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as exited:
        main([f"--runs={tmp_path}"])
    assert exited.value.code == 2
    assert "--runs: expected a folder with index.html" in capsys.readouterr().err


@needs_chromium
@pytest.mark.parametrize("width", [1400, 390])
def test_the_cards_are_chosen_by_their_filters(tmp_path, width):
    names = ("retention", "softmax_attention", "squeeze_excitation")
    entries = [jattn.zoo.info(name) for name in names]
    cards = [
        mechanisms.card(entry, ["kernel"] * (i < 2), i == 1) for i, entry in enumerate(entries)
    ]
    choices = {"kind": ("mixer", "gate"), "kernel": ("yes", "no"), "claims": ("yes", "no")}
    static = Path(mechanisms.__file__).parent / "static"
    body = re.search(r"```\{raw\} html\n(.*)```", mechanisms.index(cards, choices), re.DOTALL)
    assert body is not None
    page = (
        f"<!doctype html><style>{(static / 'jattn.css').read_text()}</style>{body[1]}"
        f"<script>{(static / 'grid.js').read_text()}</script>"
    )
    script = """
      const shown = () => [...page.querySelectorAll(".jattn-card")]
        .filter((card) => !card.hidden).map((card) => card.querySelector("b").textContent).join();
      const set = (name, value) => {
        const select = page.querySelector(`[data-filter=${name}]`);
        select.value = value; select.dispatchEvent(new view.Event("input", {bubbles: true}));
      };
      said.all = shown();
      set("kind", "mixer"); said.mixers = shown();
      set("claims", "no"); said.both = shown();
      said.count = page.querySelector("output").textContent;
      set("kind", ""); set("claims", "");
      const find = page.querySelector("[data-find]");
      find.value = "networks squeeze"; find.dispatchEvent(new view.Event("input", {bubbles: true}));
      said.words = shown();
    """
    said = said_in_browser(tmp_path, page, width, script)
    assert said["all"] == "retention,softmax_attention,squeeze_excitation"
    assert said["mixers"] == "retention,softmax_attention"
    assert said["both"] == "retention"
    assert said["count"] == "1 of 3"
    assert said["words"] == "squeeze_excitation"
    assert int(said["overflow"]) <= 0


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    for name in ("myst_nb", "sphinx_book_theme", "sphinx_design"):
        if importlib.util.find_spec(name) is None:
            pytest.skip("needs Sphinx and its parts, as extra site has them")
    assert main([f"--out={tmp_path}"]) == 0
    for name in NAMES:
        assert (tmp_path / "mechanisms" / f"{name}.html").is_file()
    assert (tmp_path / "llms.txt").is_file()
    assert "const TABLE" in (tmp_path / "_static" / "playground.html").read_text()
