"""jattn: attention mechanisms as pure functions."""

import importlib
from typing import Any

from jattn.attention import attend, masks
from jattn.recurrence import recur

__all__ = ["attend", "masks", "recur"]

# Heavier parts load when first used, so that `import jattn` stays as light as `import jax`.
_LAZY = {
    "attention": "jattn.attention",
    "nn": "jattn.nn",
    "recurrence": "jattn.recurrence",
    "training": "jattn.training",
    "zoo": "jattn.mechanisms.zoo",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(_LAZY[name])
    raise AttributeError(f"module 'jattn' has no attribute {name!r}")
