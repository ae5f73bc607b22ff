"""What is to be started, checked before anything is."""

import dataclasses
import math
import re
import shlex

from experiments.reproduce import REGISTERED
from experiments.tools.chips import CHIPS, Chip, check_topology
from jattn.training import UsageError, configs
from jattn.training.config_checks import near
from jattn.training.stores import scheme_of

MEGASCALE_PORT = 8081  # at which libtpu joins slices
PORT = 8476  # at which the first process waits for the others, where no pod says so itself
NAME = re.compile(r"[a-z]([-a-z0-9]{0,37}[a-z0-9])?")


@dataclasses.dataclass(frozen=True)
class Request:
    """A run on so many slices of a topology.

    Attributes:
        experiment: its name.
        config: of `--config`, with a preset.
        overrides: `--config.FIELD=VALUE` flags.
        topology: chip and grid.
        workdir: that all hosts reach.
        slices: how many.
        spot: whether machines may be taken away at any time, for less.
        restarts: how often at most it is started again.
        name: of what is made for it.
    """

    experiment: str
    config: str
    topology: str
    workdir: str
    overrides: tuple[str, ...] = ()
    slices: int = 1
    spot: bool = False
    restarts: int = 100
    name: str = ""

    def __post_init__(self):
        if self.experiment not in REGISTERED:
            raise UsageError(
                f"experiment: no experiment {self.experiment!r}"
                f"{near(self.experiment, REGISTERED)}; there are {', '.join(REGISTERED)}"
            )
        path, preset = configs.split(self.config, self.experiment)
        configs.override(configs.load_module(path), path, preset, self.overrides)
        _, grid = check_topology(self.topology)
        if math.prod(grid) % self.chip.host:
            raise UsageError(
                f"topology: hosts have {self.chip.host} chips of a {self.topology.split(':')[0]}; "
                f"got {self.topology!r}, {math.prod(grid)} chips"
            )
        if not self.workdir:
            raise UsageError("workdir: missing; say where all hosts can write: gs://BUCKET/RUN")
        if scheme_of(self.workdir) not in (None, "gs"):
            raise UsageError(
                f"workdir: expected gs://BUCKET/RUN, or a folder that all hosts share, got "
                f"{self.workdir!r}"
            )
        object.__setattr__(self, "name", self.name or self.experiment.replace("_", "-")[:39])
        if not NAME.fullmatch(self.name):
            raise UsageError(
                "name: expected at most 39 small letters, digits and hyphens, a letter first; got "
                f"{self.name!r}"
            )

    @property
    def chip(self) -> Chip:
        """The kind of chip."""
        return CHIPS[self.topology.split(":")[0]]

    @property
    def grid(self) -> str:
        """The grid of chips of one slice, `"4x4"`."""
        return self.topology.split(":")[1]

    @property
    def hosts(self) -> int:
        """Hosts of one slice."""
        return math.prod(check_topology(self.topology)[1]) // self.chip.host

    def command(self, *more: str) -> list[str]:
        """The words of the command that every host runs."""
        return [
            "python",
            "-m",
            f"experiments.{self.experiment}",
            f"--config={self.config}",
            *self.overrides,
            f"--workdir={self.workdir}",
            *more,
        ]

    def script(self, *more: str) -> str:
        """A shell script that runs the command until it is done, as often as it may be restarted.

        What bad input or a failing claim ends is not started again: statuses 0, 2, 3 and 4.
        """
        return f"""\
for attempt in $(seq 0 {self.restarts}); do
  status=0
  {shlex.join(self.command(*more))} || status=$?
  case $status in 0 | 2 | 3 | 4) exit "$status" ;; esac
  echo "attempt $attempt ended with status $status; going on from the workdir" >&2
  sleep 10
done
exit "$status"
"""
