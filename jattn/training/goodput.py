"""Where the time of a run goes: training steps, compilation, checkpoints, waiting, and the rest."""

import contextlib
import time
from collections.abc import Iterator

KINDS = ("training steps", "compilation", "checkpoints", "waiting for other processes")


class Goodput:
    """A clock with a hand for each kind of time.

    Example:
        >>> goodput = Goodput()
        >>> with goodput.of("compilation"):
        ...     time.sleep(0.01)
        >>> goodput.shares()["compilation"] > 0
        True
    """

    def __init__(self):
        self._began = time.monotonic()
        self.seconds: dict[str, float] = dict.fromkeys(KINDS, 0.0)

    @contextlib.contextmanager
    def of(self, kind: str) -> Iterator[None]:
        """Counts the time it lasts as one of `KINDS`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[kind] += time.monotonic() - began

    def shares(self) -> dict[str, float]:
        """Each kind's share of the time so far, and that of everything else; they sum to 1."""
        total = max(time.monotonic() - self._began, 1e-9)
        shares = {kind: seconds / total for kind, seconds in self.seconds.items()}
        return shares | {"everything else": max(0.0, 1 - sum(shares.values()))}

    def __str__(self) -> str:
        shares = {kind: share for kind, share in self.shares().items() if round(100 * share)}
        listed = ", ".join(f"{100 * share:.0f} % {kind}" for kind, share in shares.items())
        return f"goodput: {listed}; of {time.monotonic() - self._began:.0f} s"
