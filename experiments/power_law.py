"""Power laws through measured points."""

import numpy as np
from numpy.typing import ArrayLike


def exponent(x: ArrayLike, values: ArrayLike) -> np.ndarray:
    """`a` of `values ~ x^a`, by least squares of the logarithms.

    Args:
        x: positive, `[n]`.
        values: positive, `[n]`, or `[seeds, n]` for an exponent of each seed.

    Example:
        >>> round(float(exponent([1, 2, 4], [3, 12, 48])), 3)
        2.0
    """
    return np.polyfit(np.log(np.asarray(x, float)), np.log(np.asarray(values, float)).T, 1)[0]
