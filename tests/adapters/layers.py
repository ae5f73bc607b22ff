"""Arrays of models with layers, however a case names them."""

import re
from collections.abc import Mapping
from typing import Any


def per_layer(arrays: Mapping[str, Any], name: str, rank: int, layers: int | None = None) -> list:
    """The array `name` of each layer: one an array, stacked, or the same for all.

    Args:
        arrays: with `NAME_0`, `NAME_1`, ... or `NAME0`, `NAME1`, ...; or with `NAME`, which has a
            leading axis of layers where its rank is one more than that of a layer's.
        name: of the array.
        rank: of the array of one layer.
        layers: how many there are, for an array that all share.

    Returns:
        One array a layer; none where there is none of this name.

    Example:
        >>> import numpy as np
        >>> [x.shape for x in per_layer({"w": np.ones((2, 3, 4))}, "w", 2)]
        [(3, 4), (3, 4)]
        >>> [x.shape for x in per_layer({"w_1": np.ones(4), "w_0": np.ones(3)}, "w", 1)]
        [(3,), (4,)]
    """
    if name in arrays:
        array = arrays[name]
        return list(array) if array.ndim > rank else [array] * (layers or 1)
    named = {
        int(found[1]): key for key in arrays if (found := re.fullmatch(rf"{name}_?(\d+)", key))
    }
    return [arrays[named[layer]] for layer in sorted(named)]
