"""Every golden case in the repository passes, and the checker can tell a wrong answer."""

import numpy as np
import pytest

from tests import golden

CASES = sorted(golden.HERE.rglob("*.json"))


@pytest.mark.smoke
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
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
