"""Twelve channel attentions on equal terms (arXiv 2310.11198).

    python -m experiments.attention_gates --config=configs/attention_gates.py:small \\
        --workdir=runs/attention_gates

Study "dispersion": eight channels with means of +-0.5, one of them noisy; the label is the sign
of that one's mean. Study "imagery": made recordings in which one of four rhythms fades, read by
BaseNet. Fresh examples are drawn at every step, so nothing is dropped out.

At preset small gates by norm or deviation solve "dispersion" (GCT 0.998, SRM 1.000), those by means
or cosines do not (0.63 to 0.65, where 0.637 is the best that means allow), and maxima, entropies,
covariances and codewords stand between. Settings are those that were given before any run.

Presets (time on 2 CPU cores):
    small   two seeds. "dispersion": 113 seconds on a machine with eight other jobs; "imagery" was
            not run whole yet.
    full    five seeds, more of the gates' forms, twice as many steps of "imagery".
    paper   as full, with the paper's BaseNet and length of recordings, made ones: the recordings of
            BCIC IV 2a are not here.
"""

from typing import Any

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"dispersion.steps": 4_500}, "size": {"dispersion.channels": 12}}
TWELVE = (
    "none,se,eca,fca:frequencies=(2,),ge:form=minus,ge:form=theta,srm,gct,gsop,encnet,cbam,"
    "collaborative_attention:space=False,collaborative_attention"
)
MORE = f"{TWELVE},ge,srm:mlp=True,gsop:activation=none,fca,soft_mask_attention"


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config: Any = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    config.seeds = 2
    # Names of gates with options, separated by commas; none: no gate.
    config.gates = TWELVE
    config.dispersion = ml_collections.ConfigDict(
        dict(length=64, channels=8, steps=3_000, batch_size=128, learning_rate=5e-3, test=4_000)
    )
    # BaseNet's sizes, and the noise of recordings of 100 samples a second.
    config.imagery = ml_collections.ConfigDict(
        dict(electrodes=8, length=128, noise=1.0, filters=8, width=25, window=25, stride=5,
             features=16, taps=5, final=8, steps=300, batch_size=32, learning_rate=3e-3,
             test=1_000)
    )  # fmt: skip
    config.parallel = parallel_config()
    # Each seed has its own.
    config.parallel.cpu_devices = 2
    if preset != "small":
        config.seeds, config.gates = 5, MORE
        config.parallel.cpu_devices = 1
        config.imagery.steps = 800
    if preset == "paper":
        config.imagery.update(
            dict(electrodes=22, length=1_000, filters=40, width=25, window=75, stride=15, taps=15,
                 steps=4_500, batch_size=64, learning_rate=1e-3)
        )  # fmt: skip
    return config
