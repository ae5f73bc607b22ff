"""Arrows point down: no part of the library imports one that stands above it."""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up; parts of one line do not import each other.
LAYERS = (
    ("jattn.checks", "jattn.extremes", "jattn.flops", "jattn.platforms", "jattn.xla_flags"),
    ("jattn.sharding", "jattn.losses", "jattn.diffusion"),
    ("jattn.pallas",),
    ("jattn.attention", "jattn.recurrence"),
    ("jattn.mechanisms",),
    ("jattn.zoo",),
    ("jattn.pretrained",),
    ("jattn.testing", "jattn.tasks", "jattn.nn", "jattn.training"),
    ("jattn.theory", "jattn.systems", "jattn.lens"),
    ("configs",),
    ("experiments",),
)
# Within `jattn.mechanisms`: what mechanisms are made of, the families, and the zoo, which has all.
MECHANISMS = (
    ("layers",),
    ("mixer",),
    ("kinds",),
    ("mechanism",),
    ("frames",),
    ("combinators",),
    ("channel", "cross", "linear", "memory", "pooling", "softmax", "sparse", "pointer"),
    ("zoo",),
    ("costs",),
)
FLAX = ("jattn.nn", "jattn.lens", "experiments")
HEAVY = ("rich", "matplotlib", "orbax", "optax", "ml_collections", "tensorboardX")


@functools.cache
def imports(folder: str) -> list[tuple[Path, str, str]]:
    """File, the module that it is and a module that it imports, for each import in a folder."""
    found = []
    for file in sorted((ROOT / folder).rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found += [(file, module, name.name) for name in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: imports are absolute"
                found += [(file, module, f"{node.module}.{name.name}") for name in node.names]
    return found


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def heights(layers, prefix: str = "") -> dict[str, int]:
    return {prefix + part: height for height, layer in enumerate(layers) for part in layer}


def part_of(module: str, parts: dict[str, int]) -> str | None:
    return next((part for part in parts if is_in(module, part)), None)


def arrows_that_point_up(edges, layers: dict[str, int]) -> list[str]:
    wrong = []
    for file, module, imported in edges:
        above, below = part_of(module, layers), part_of(imported, layers)
        if above and below and above != below and layers[below] >= layers[above]:
            wrong.append(f"{file.relative_to(ROOT)} imports {imported}")
    return wrong


@pytest.mark.parametrize("folder", ["jattn", "experiments", "configs"])
def test_arrows_point_down(folder):
    wrong = arrows_that_point_up(imports(folder), heights(LAYERS))
    assert not wrong, wrong


def test_families_of_mechanisms_do_not_import_each_other():
    inside = heights(MECHANISMS, "jattn.mechanisms.")
    wrong = arrows_that_point_up(imports("jattn/mechanisms"), inside)
    assert not wrong, wrong


def test_every_part_has_its_layer():
    """A new folder is put into the lists above before it is imported from anywhere."""
    for folder, layers, prefix in (
        ("jattn", LAYERS, ""),
        ("jattn/mechanisms", MECHANISMS, "jattn.mechanisms."),
    ):
        known = heights(layers, prefix)
        for path in (ROOT / folder).iterdir():
            if path.name.startswith("_") or (path.is_file() and path.suffix != ".py"):
                continue
            assert ".".join((*folder.split("/"), path.stem)) in known, path


def test_flax_is_for_models_only():
    wrong = [
        f"{file.relative_to(ROOT)}"
        for folder in ("jattn", "experiments")
        for file, module, imported in imports(folder)
        if is_in(imported, "flax") and not any(is_in(module, part) for part in FLAX)
    ]
    assert not wrong, wrong


def test_engines_and_mechanisms_need_jax_alone():
    wrong = [
        f"{file.relative_to(ROOT)} imports {imported}"
        for folder in ("jattn/attention", "jattn/recurrence", "jattn/pallas", "jattn/mechanisms")
        for file, _, imported in imports(folder)
        if any(is_in(imported, package) for package in HEAVY)
    ]
    assert not wrong, wrong


def test_experiments_do_not_import_each_other():
    """What two of them need lies beside them, or in the library."""
    packages = {path.parent.name for path in (ROOT / "experiments").glob("*/__init__.py")}
    tools = {"tools"}
    wrong = [
        f"{file.relative_to(ROOT)} imports {imported}"
        for file, module, imported in imports("experiments")
        for mine, other in [(module.split(".")[1:2], imported.split(".")[1:2])]
        if is_in(imported, "experiments") and mine != other
        if mine and mine[0] in packages - tools and other and other[0] in packages - tools
    ]
    assert not wrong, wrong
