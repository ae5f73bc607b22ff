"""Trains the same small decoder with any list of mechanisms, and compares them fairly.

Same data, steps, seeds and parameters (within 5 %): bits a byte of English text, at the length of
training and beyond, and accuracy in associative recall, copying and induction.

    python -m experiments.bakeoff --config=configs/bakeoff.py:small --workdir=runs/bakeoff

The settings, presets and expected times are in configs/bakeoff.py. The table is also written to
`table.md` in the workdir.
"""

from collections.abc import Sequence

import numpy as np

from experiments.bakeoff import table
from experiments.bakeoff.study import Row, compare
from jattn.training import Claim, Paper, Run
from jattn.training.claims import own
from jattn.training.run import write_atomically

SOFTPLUS = Paper("arXiv 2501.13428", "Softplus attention with re-weighting")
DECONSTRUCTED = Paper("arXiv 2510.11602", "Deconstructing attention")


def run_experiment(config, run: Run) -> list[Claim]:
    """Writes the table and its figures, and returns the claims that its rows can show."""
    rows = compare(run, config)
    if run.writes:
        text = table.markdown(rows, config.stretches)
        write_atomically(run.workdir / "table.md", text.encode())
    for line in table.plain(rows, config.stretches):
        run.note(line)
    table.draw(run, config, rows)
    return claims(rows)


def claims(rows: Sequence[Row]) -> list[Claim]:
    """What the papers say of mechanisms that are there, and that the comparison is fair."""
    found = {row.mechanism: row for row in rows if not row.failed}
    stated = []
    sizes = [row.parameters for row in found.values() if row.parameters]
    if sizes:
        stated.append(
            Claim(
                "fair",
                "all text models have as many parameters: greatest departure from the median",
                own("widths are whole numbers, which leaves a few percent"),
                0.0,
                float(np.max(np.abs(np.array(sizes) / np.median(sizes) - 1))),
                "~=",
                tolerance=0.05,
            )
        )
    softmax = found.get("softmax_attention")
    softplus = found.get("reweighted_softplus_attention")
    if softmax and softplus and len(softmax.stretched) > 1 and len(softplus.stretched) > 1:
        rise = [float((row.stretched[-1] - row.stretched[0]).mean()) for row in (softplus, softmax)]
        stated.append(
            SOFTPLUS.claim(
                "softplus-extrapolates",
                "re-weighted softplus attention loses less than half of what softmax loses when "
                "the text grows to its longest (bits a byte)",
                0.5 * rise[1],
                rise[0],
                "<=",
                where="table of lengths",
                because="it is half of what softmax loses in this run",
                note=f"softmax loses {rise[1]:.2f}, re-weighted softplus {rise[0]:.2f}",
            )
        )
    mlp = found.get("gated_mlp")
    if softmax and mlp and "text" in softmax.quality:
        lost = float((mlp.quality["text"] - softmax.quality["text"]).mean() * np.log(2))
        stated.append(
            DECONSTRUCTED.claim(
                "mixing-is-indispensable",
                "a decoder that mixes no tokens at all predicts text worse than one with softmax "
                "attention, by more than 0.3 nats a byte",
                0.3,
                lost,
                ">",
                because="0.3 nats is a clear loss",
                note=f"{len(softmax.quality['text'])} seeds",
            )
        )
    return stated
