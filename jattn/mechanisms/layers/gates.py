"""How gates begin: outputs let through, and memories that keep what they read.

A gate that begins shut gets little gradient, and what is behind it less still; a memory that
forgets within a few tokens never sees that keeping them would have paid. So output gates begin at
1, and of any number of heads one keeps some thousand tokens.
"""

import jax
import numpy as np
from jaxtyping import Array, Float

from jattn.mechanisms.layers.linear_maps import linear

LONGEST = 4096.0  # tokens after which the slowest head has forgotten all but 1 / e


def output_gate(
    x: Float[Array, "*batch m"], weights: Float[Array, "m c"]
) -> Float[Array, "*batch c"]:
    """`2 sigmoid(x W)`, about 1 at first.

    Papers have `silu(x W)`, which is about 0 at first: then nothing comes out of the memory, and
    training spends its steps on opening the gate.
    """
    return 2 * jax.nn.sigmoid(linear(x, weights))


def horizons(heads: int, longest: float = LONGEST) -> Float[np.ndarray, " h"]:
    """Tokens after which each head has forgotten all but 1 / e, at first: `longest^(1 - i / h)`.

    The slowest head comes first, whatever their number is; the others are spread evenly by their
    logarithms.

    Example:
        >>> horizons(1).tolist(), horizons(4).tolist()
        ([4096.0], [4096.0, 512.0, 64.0, 8.0])
    """
    return longest ** (1 - np.arange(heads) / heads)
