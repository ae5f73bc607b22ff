"""Attentive poolers on equal terms (arXiv 2506.10178), and bags of instances (arXiv 2311.07125).

    python -m experiments.attentive_probing --config=configs/attentive_probing.py:small \\
        --workdir=runs/attentive_probing

Presets (time on 2 CPU cores):
    small   two seeds, four of bags; the encoder reads scikit-learn's digits. "attributes": 378
            seconds on a machine that was mostly taken by other jobs, "bags": 17; "digits" was not
            run whole yet.
    full    five seeds, all poolers in every study, twice as many steps.
    paper   as full, on MNIST's digits with an encoder of 6 layers: the papers' encoders and
            ImageNet are not here.
"""

from typing import Any

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"attributes.steps": 4_500}, "size": {"digits.dim": 48}}
FEW = "none,efficient_probing:queries=1,efficient_probing:queries=2,efficient_probing:queries=8"
OTHERS = (
    "aim,simpool,simpool:maps=False,clip_pooling,coca,cait,dolg,cbam_pooling,abmil,pma,"
    "cross_attention_pooling:form=vjepa,cross_attention_pooling:form=cae,"
    "cross_attention_pooling:form=siglip,acmil"
)


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config: Any = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    config.seeds = 2
    # Pools are names of the zoo with options, separated by commas; none: the mean.
    config.attributes = ml_collections.ConfigDict(
        dict(pools=FEW, tokens=49, dim=32, steps=3_000, batch_size=128, learning_rate=5e-3,
             test=4_000)
    )  # fmt: skip
    # Hidden patches, of 16, and the encoder's training; then the probes'.
    config.digits = ml_collections.ConfigDict(
        dict(pools=f"{FEW},{OTHERS}", dataset="digits", patch=2, hidden=8, dim=32, heads=4,
             layers=2, encoder_steps=1_500, encoder_rate=2e-3, steps=800, batch_size=64,
             learning_rate=3e-3)
    )  # fmt: skip
    config.bags = ml_collections.ConfigDict(
        dict(bags=60, test=300, instances=60, dim=16, width=32, hidden=32, branches=5, top=10,
             share=0.6, seeds=4, steps=1_500, batch_size=4, learning_rate=1e-3)
    )  # fmt: skip
    config.parallel = parallel_config()
    # Half of the seeds each.
    config.parallel.cpu_devices = 2
    if preset != "small":
        config.seeds = 5
        config.bags.seeds = 10
        config.parallel.cpu_devices = 1
        config.attributes.update(pools=f"{FEW},{OTHERS}", steps=6_000)
        config.digits.update(encoder_steps=3_000, steps=1_600)
    if preset == "paper":
        config.digits.update(dataset="mnist", patch=4, hidden=30, layers=6, dim=64)
    return config
