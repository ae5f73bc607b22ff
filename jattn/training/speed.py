"""How fast a fit is, dispatch by dispatch, and a profile of one of them."""

import contextlib
import time
from collections.abc import Callable, Iterator

import jax
from jaxtyping import PyTree

from jattn.training.parallel import Layout
from jattn.training.run import Run

# Dense bf16 operations a second of a device, by the beginning of its kind as jax names it; from
# the vendors' pages.
PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 2307e12 / 2,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(kind: str) -> float | None:
    """The bf16 peak of a kind of device, operations a second; None where it is not known.

    Example:
        >>> peak_flops("TPU v5 lite"), peak_flops("cpu")
        (197000000000000.0, None)
    """
    fitting = [name for name in PEAKS if kind.startswith(name)]
    return PEAKS[max(fitting, key=len)] if fitting else None


class Speed:
    """Notes the speed of each dispatch of a fit: seconds a step, examples a second, utilisation.

    Model FLOPs utilisation is that share of the chips' bf16 peak which the operations of the
    program come to, each counted once; it is noted where the peak is known.

    Args:
        run: told the numbers; it says whether to profile.
        name: of the fit.
        examples: a step, of all seeds.
        layout: how it is spread over devices.
        program: `(state, start, stop) -> state`.
        state: shapes of its argument.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        examples: int,
        layout: Layout,
        program: Callable[..., PyTree],
        state: PyTree,
    ):
        self._run, self._name, self._examples = run, name, examples
        self._dispatches, self._seconds_at_peak = 0, None
        devices = layout.mesh.devices
        peak = peak_flops(devices.flat[0].device_kind)
        self._flops = layout.flops(program, state)
        if peak is not None:
            self._seconds_at_peak = self._flops / (peak * devices.size)

    @contextlib.contextmanager
    def of(self, start: int, stop: int) -> Iterator[int]:
        """Times what it lasts, a dispatch; gives the step at which to end it.

        If a profile was asked for, it is of the first fit that has a second dispatch: that one,
        which is then as long as asked.
        """
        profile, run = None, self._run
        if run.profile_steps and self._dispatches:
            stop = min(start + run.profile_steps, stop)
            profile = str(run.workdir / "profile")
        self._dispatches += 1
        began = time.monotonic()
        with jax.profiler.trace(profile) if profile else contextlib.nullcontext():
            yield stop
        seconds = (time.monotonic() - began) / (stop - start)
        run.flops += self._flops * (stop - start)
        if profile:
            run.profile_steps = 0
            run.note(f"{self._name}: profile of steps {start} to {stop}: xprof --logdir={profile}")
            return  # a profiled dispatch is a slow one
        speed = {"seconds_a_step": seconds, "examples_a_second": self._examples / seconds}
        if self._seconds_at_peak is not None:
            speed["model_flops_utilisation"] = self._seconds_at_peak / seconds
        run.log_speed(stop, self._name, speed)
