"""jattn: attention mechanisms as pure functions."""

import importlib
from typing import Any

from jattn.attention import attend, decode, masks
from jattn.recurrence import recur
from jattn.xla_flags import disable_ynn_fusion

disable_ynn_fusion()  # XLA reads its flags when jax starts its backends.

__version__ = "0.1.0"

__all__ = ["attend", "decode", "masks", "recur"]

# Heavier parts load when first used, so that `import jattn` stays as light as `import jax`.
_PARTS = (
    "attention",
    "lens",
    "mechanisms",
    "nn",
    "pretrained",
    "recurrence",
    "tasks",
    "testing",
    "theory",
    "training",
    "zoo",
)


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"jattn.{name}")
    raise AttributeError(f"module 'jattn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_PARTS, "__version__"])
