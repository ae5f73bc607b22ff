"""Heads of other sizes, and other networks (G11, G12)."""

import numpy as np

from experiments.grokking_regimes import figures
from experiments.grokking_regimes.cohort import PAPER, Arm, train
from jattn.theory.grokking import fit_transition
from jattn.training import Claim, Run


def capacity(run: Run, config) -> list[Claim]:
    """The largest deviation between heads, over the size of a head."""
    if not config.head_counts:
        return []
    decay, peaks = config.compare[0], {}
    for heads in sorted(config.head_counts, reverse=True):
        cohort = train(
            run, config, f"heads_{heads}", [Arm(decay)], heads=heads, steps=config.peak_steps
        )
        peaks[config.dim // heads] = cohort.peak(0)
    figures.capacity(run, peaks)
    sizes = sorted(peaks)
    growth = peaks[sizes[-1]] / peaks[sizes[0]]
    return [
        PAPER.claim("G11", f"heads of {sizes[-1]} channels come to differ more than heads of "
                    f"{sizes[0]}: ratio of the largest deviations of their entropies", 1.0,
                    float(np.median(growth)), ">", where="peak over d/H", seeds=growth,
                    note=", ".join(f"{size}: {peaks[size].mean():.3f}" for size in sizes))
    ]  # fmt: skip


def other_networks(run: Run, config) -> list[Claim]:
    """Where other networks grok: a perceptron and recurrent mixers."""
    claims, rates, decays = [], {}, np.array(config.other_decays)
    for net in config.networks:
        arms = [Arm(decay) for decay in config.other_decays]
        cohort = train(run, config, net, arms, net=net)
        did = np.isfinite(cohort.grok_step)
        rates[net] = did.mean(0)
        best = cohort.noted["test"].max((0, 2))
        critical = (
            f"lambda_c {fit_transition(np.tile(decays, len(did)), did.ravel()).critical:.3g}"
            if 0 < did.mean() < 1
            else "no transition among these"
        )
        shares = ", ".join(f"{d:g}: {r:.2f}" for d, r in zip(decays, rates[net], strict=True))
        claims += [
            PAPER.claim(f"G12-{net}", f"{net} groks, too, at some lambda: best share of right "
                        "answers of the test", 0.99, float(np.median(best)), ">=",
                        where="other architectures", seeds=best,
                        note=f"{critical}; share of runs by lambda {shares}"),
            PAPER.claim(f"G12-{net}-less", f"{net}: and not at the least: share of runs that grok "
                        f"at lambda = {decays[0]:g}, less the largest", 0.0,
                        float(rates[net][0] - rates[net].max()), "<", where="other architectures"),
        ]  # fmt: skip
    figures.networks(run, decays, rates)
    return claims
