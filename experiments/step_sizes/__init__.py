"""Asks whether attention over channels makes a residual network's steps short where it is stiff.

StepNet (2023, arXiv 2308.09939): a residual block is a step of Euler's method, and attention over
channels its step size. It should help where the flow is stiff, take short steps there, and be
needed in those blocks only (the lottery tickets of attention).

    python -m experiments.step_sizes --config=configs/step_sizes.py:small --workdir=runs/step_sizes

The settings, presets and expected times are in configs/step_sizes.py.
"""

import numpy as np

from experiments.step_sizes import figures
from experiments.step_sizes.networks import STEPNET, Network, stiffest, trained
from jattn.training import Claim, Paper, Run, UsageError

PAPER = Paper("arXiv 2308.09939", "Self-attention as a stiffness-aware step size")


def run_experiment(config, run: Run) -> list[Claim]:
    """Trains the networks on the Van der Pol oscillator."""
    if config.blocks < 4:
        raise UsageError(f"blocks: expected at least 4, got {config.blocks}")
    everywhere, nowhere = (True,) * config.blocks, (False,) * config.blocks
    networks = {
        "plain": Network("change", nowhere),
        "change only": Network("change", everywhere),
        STEPNET: Network("all", everywhere),
    }
    found = {name: trained(run, config, name, network) for name, network in networks.items()}
    chosen = stiffest(found[STEPNET]["stiffness"], config.blocks // 2)
    rest = tuple(not here for here in chosen)
    for name, where in (("stiff blocks", chosen), ("other blocks", rest)):
        found[name] = trained(run, config, name, Network("all", where))
    for name, one in found.items():
        loss = ", ".join(f"{x:.5f}" for x in one["loss"])
        run.note(f"{name}: test error {one['loss'].mean():.5f} ({loss})")
    figures.draw(run, found)
    return claims(found, chosen)


def claims(found: dict[str, dict[str, np.ndarray]], chosen: tuple[bool, ...]) -> list[Claim]:
    """What the paper says, of results by network."""
    error = {name: one["loss"] for name, one in found.items()}
    over = lambda name, other: error[name] / error[other]

    def ratio(name: str, other: str) -> float:
        return float(error[name].mean() / error[other].mean())

    where = ", ".join(str(1 + block) for block in np.flatnonzero(chosen))
    return [
        PAPER.claim(
            "attention-helps",
            "With StepNet's attention the flow is learned better: test error over that of plain "
            "blocks, ratio of means.",
            0.8,
            ratio(STEPNET, "plain"),
            "<=",
            because="a fifth less is a clear gain",
            seeds=over(STEPNET, "plain"),
        ),
        PAPER.claim(
            "more-inputs",
            "It is no worse than attention to the change alone: ratio of means.",
            1.0,
            ratio(STEPNET, "change only"),
            "<=",
            because="it is what attention to the change alone has in this run",
            seeds=over(STEPNET, "change only"),
        ),
        PAPER.claim(
            "short-where-stiff",
            "Steps are short where the network is stiff: rank correlation of the mean step size "
            "with 1 / stiffness, over blocks and test examples, mean of the seeds.",
            0.3,
            float(found[STEPNET]["correlation"].mean()),
            ">",
            because="0.3 is more than a trace; the measure of stiffness is our own",
            note=f"over blocks alone {found[STEPNET]['of_blocks'].mean():.2f}",
            seeds=found[STEPNET]["correlation"],
        ),
        PAPER.claim(
            "ticket",
            "Attention in the stiffer half of the blocks does as well as in all: ratio of means.",
            1.1,
            ratio("stiff blocks", STEPNET),
            "<=",
            where="lottery tickets",
            because="a tenth counts as none",
            note=f"blocks {where}",
            seeds=over("stiff blocks", STEPNET),
        ),
        PAPER.claim(
            "other-ticket",
            "It does better than in the less stiff half: ratio of means.",
            1.0,
            ratio("stiff blocks", "other blocks"),
            "<",
            where="lottery tickets",
            because="it is what the other half has in this run",
            seeds=over("stiff blocks", "other blocks"),
        ),
    ]
