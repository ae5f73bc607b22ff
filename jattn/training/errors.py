"""The ways in which a run ends early; the command line turns each into one line and a status."""


class UsageError(ValueError):
    """What was asked cannot be done as asked: a bad flag, workdir, mesh, or a full disk."""


class NonFiniteError(ArithmeticError):
    """A loss or a parameter became NaN or infinite.

    Attributes:
        fit: name of the fit.
        step: the step, counted from 0, at which it was first seen.
        seed: index of the seed.
    """

    def __init__(self, fit: str, step: int, seed: int):
        super().__init__(f"fit {fit}: the loss is not finite at step {step} of seed {seed}")
        self.fit, self.step, self.seed = fit, step, seed


class Interrupted(Exception):
    """The run was asked to stop, and has saved what it needs to go on later."""
