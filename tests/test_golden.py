"""Every golden case in the repository passes, and the checker can tell a wrong answer."""

import numpy as np
import pytest

from tests import golden
from tests.pretrained_model import needs_smollm2

# Of the trained model: each runs it dozens of times.
SLOW = ("analyses", "reference")


def marked(path):
    marks = [pytest.mark.slow] if path.stem in SLOW else []
    marks += [needs_smollm2] if path.parent.name == "smollm2" else [pytest.mark.smoke]
    return pytest.param(path, marks=marks, id=path.stem)


CASES = [marked(path) for path in sorted(golden.HERE.rglob("*.json"))]


@pytest.mark.parametrize("path", CASES)
def test_case_passes(path):
    case = golden.load(path)
    outputs = golden.run_case(path)
    assert golden.passes(case, outputs), golden.errors(case, outputs)


def test_a_wrong_output_fails(monkeypatch, capsys, tmp_path):
    path = golden.HERE / "theory" / "icl_softmax_h2.json"
    key = ("theory", "icl_softmax_attention")
    honest = golden.ADAPTERS[key]
    off = lambda case: dict(honest(case)) | {"loss": case.arrays["loss"] + 1e-3}
    monkeypatch.setitem(golden.ADAPTERS, key, off)
    assert not golden.passes(golden.load(path), golden.run_case(path))
    assert golden.main([str(path.parent)]) == 1
    assert "FAIL" in capsys.readouterr().out
    assert golden.main([str(tmp_path)]) == 2


def test_not_finite_is_an_infinite_error():
    case = golden.Case({}, {"x": np.array([1.0, -np.inf])})
    assert golden.errors(case, {"x": np.array([1.0, -np.inf])})["x"][0] == 0
    assert golden.errors(case, {"x": np.array([np.nan, -np.inf])})["x"][0] > 1e30


@pytest.mark.parametrize(
    ("stated", "error", "scale", "right"),
    [
        ("1e-5", 5e-6, 1.0, True),
        ("1e-5", 5e-4, 100.0, True),  # relative to the largest number
        ("1e-5", 5e-6, 0.1, False),  # small, but of a small array
        ("float32: 2e-5 abs", 1e-5, 0.1, True),
        ("float32: 2e-5 abs", 5e-4, 100.0, False),
        ("2e-5 relative to max|.|", 1e-3, 100.0, True),
        ("exact", 1e-9, 1.0, False),
        ("exact", 0.0, 1.0, True),
        ("", 1.5e-5, 1.0, True),
        ("", 5e-5, 1.0, False),
        ("1e-5", 1e-6, 0.0, True),  # an array of zeros has no scale
    ],
)
def test_tolerance_is_what_the_case_says(stated, error, scale, right):
    expected = np.array([scale, 0.0])
    case = golden.Case({"tolerance": stated}, {"x": expected})
    assert golden.passes(case, {"x": expected + np.array([0.0, error])}) is right


def test_arrays_of_layers_may_be_stacked_or_named_one_by_one():
    rng = np.random.default_rng(0)
    shapes = {"wqkv": (12, 3, 3, 4), "w_select": (12, 3), "w_msg1": (12, 6), "w_msg2": (6, 1)}
    shapes |= {"wo": (3, 4, 12), "bo": (12,)}
    stacked = {name: rng.standard_normal((2, *shape)) for name, shape in shapes.items()}
    whole = {name: rng.standard_normal((2, 5, 12)) for name in ("x", "cotangent", "y", "dx")}
    named = {f"{name}_{i}": array[i] for name, array in stacked.items() for i in range(2)}
    share = np.zeros((2, 2, 5, 3))  # of each layer
    key = ("softmax_variants", "reversed_attention")
    info = {"options": {"heads": 3, "layers": 2}}
    one = golden.ADAPTERS[key](golden.Case(info, stacked | whole | {"p": share}))
    two = golden.ADAPTERS[key](
        golden.Case(info, named | whole | {"p_0": share[0], "p_1": share[1]})
    )
    for name in ("y", "dx"):
        np.testing.assert_array_equal(one[name], two[name])
    np.testing.assert_array_equal(one["p"], [two["p_0"], two["p_1"]])
