"""What the papers say, of accuracies at one number of parameters."""

import numpy as np

from experiments.functional import parse_mechanisms
from experiments.image_mixers.models import AGENTS, SOFTMAX, names
from experiments.margins import bar
from jattn.training import Claim, Paper
from jattn.training.claims import own

AGENT = Paper("arXiv 2312.08874", "Agent attention")
DYDILA = Paper("arXiv 2601.13683", "Dynamic differential linear attention")
FLOW = Paper("arXiv 2202.06258", "Flowformer")
RELU, ELU, FLOWS = "linear_attention:feature_map=relu", "linear_attention", "flow_attention"
GAIN, GUESS = 0.005, 0.1
HERE = "it is what the other has in this run, and two standard errors"


def claims_of(config, rows: dict[str, dict], speed: dict[str, np.ndarray]) -> list[Claim]:
    """Claims about the mixers that are there."""
    accuracy = {name: row["test_accuracy"] for name, row in rows.items()}
    sizes = np.array([float(row["parameters"]) for row in rows.values()])
    seeds = f"{config.dataset}, {config.seeds} seeds, {config.epochs} epochs"
    shown = lambda *chosen: ", ".join(f"{name} {accuracy[name].mean():.3f}" for name in chosen)
    claims = [
        Claim(
            "fair", "all have as many parameters: greatest departure from the median",
            own("widths are whole numbers"), 0.0,
            float(np.abs(sizes / np.median(sizes) - 1).max()), "~=", 0.05,
            note=f"{int(np.median(sizes)):,}",
        )
    ]  # fmt: skip

    def above(paper: Paper, id: str, says: str, ours: str, other: str, gain: float = 0.0):
        if ours not in accuracy or other not in accuracy:
            return
        wanted = max(bar(accuracy[other], accuracy[ours], GUESS), accuracy[other].mean() + gain)
        why = HERE + (f", {gain} at least" if gain else "")
        claims.append(
            paper.claim(
                id, says, float(wanted), float(accuracy[ours].mean()), ">=", because=why,
                note=f"{shown(ours, other)}; {seeds}", seeds=accuracy[ours],
            )
        )  # fmt: skip

    four, one = f"{AGENTS}4", f"{AGENTS}1"
    above(AGENT, "agents", "4 agents tell digits apart better than softmax attention", four,
          SOFTMAX, GAIN)  # fmt: skip
    above(AGENT, "agents-many", "and better than one agent does, whose queries all get the same",
          four, one)  # fmt: skip
    routed = [name for name in names(config) if parse_mechanisms(name)[0][0] == "dydila"]
    if routed:
        above(DYDILA, "dydila", "DyDiLA with its banks is better than features by relu", routed[0],
              RELU)  # fmt: skip
        for less in routed[1:]:
            slug = less.replace(":", "-").replace("=", "")
            above(DYDILA, f"without-{slug}", f"and than {less}, which has less of them", routed[0],
                  less)  # fmt: skip
    above(FLOW, "flow", "Flow-Attention is better than elu + 1", FLOWS, ELU)
    entries = names(config)
    if SOFTMAX in entries and four in entries:
        ratio = speed["ms"][entries.index(SOFTMAX)] / speed["ms"][entries.index(four)]
        tokens = config.speed_grid**2
        claims.append(
            AGENT.claim(
                "agents-fast", f"on {tokens} patches 4 agents are faster than softmax attention: "
                "how many times", 1.0, float(ratio), ">",
                because="1 is as fast", note=f"{2 * 4 / tokens:.3f} of its scores are left",
            )
        )  # fmt: skip
    return claims
