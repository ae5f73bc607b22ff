"""jattn: attention mechanisms as pure functions."""

import importlib
from typing import TYPE_CHECKING, Any

from jattn.xla_flags import disable_ynn_fusion

if TYPE_CHECKING:
    from jattn.attention import attend, decode, masks
    from jattn.recurrence import recur

disable_ynn_fusion()  # XLA reads its flags when jax starts its backends.

__version__ = "0.1.0"  # the one place: the package and the site read it here

__all__ = ["attend", "decode", "masks", "recur"]

# Everything loads when first used, so that `import jattn` stays as light as `import jax`.
_FUNCTIONS = {
    "attend": "jattn.attention",
    "decode": "jattn.attention",
    "masks": "jattn.attention",
    "recur": "jattn.recurrence",
}
_PARTS = (
    "attention",
    "lens",
    "losses",
    "mechanisms",
    "nn",
    "pretrained",
    "recurrence",
    "systems",
    "tasks",
    "testing",
    "theory",
    "training",
    "zoo",
)


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"jattn.{name}")
    if name in _FUNCTIONS:
        found = getattr(importlib.import_module(_FUNCTIONS[name]), name)
        globals()[name] = found  # The next look-up does not come here.
        return found
    raise AttributeError(f"module 'jattn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_PARTS, "__version__"])
