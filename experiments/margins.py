"""What a model must reach to be better than another one, and than guessing, by more than chance."""

import numpy as np
from jaxtyping import Float

CLEAR = 2.0  # standard errors; and how often better than a guess


def standard_error(values: Float[np.ndarray, " seeds"]) -> float:
    """Of the mean over seeds; of a single seed 0, for nothing is known of it.

    Example:
        >>> standard_error(np.array([0.0, 2.0]))
        1.0
    """
    values = np.asarray(values, float)
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def bar(
    other: Float[np.ndarray, " seeds"], own: Float[np.ndarray, " seeds"], guess: float
) -> float:
    """The accuracy that is clearly above another model's and above a guess.

    Two standard errors of the difference above the other's mean, and at least twice a guess: of two
    models that guess, neither is better.

    Args:
        other: accuracies of the other model.
        own: of the one that should be better.
        guess: of a guess.

    Example:
        >>> bar(np.array([0.1, 0.1]), np.array([0.2, 0.2]), 0.125)
        0.25
        >>> bar(np.array([0.5, 0.5]), np.array([0.7, 0.9]), 0.125)
        0.7
    """
    spread = np.hypot(standard_error(other), standard_error(own))
    return round(max(float(np.mean(other)) + CLEAR * float(spread), CLEAR * guess), 12)
