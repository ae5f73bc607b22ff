"""Weight decay and grokking, with diagnostics of attention maps (arXiv 2605.20441).

    python -m experiments.grokking_regimes --config=configs/grokking_regimes.py:small \\
        --workdir=runs/grokking_regimes

Arithmetic mod p, half of all problems to train on. The small presets have p = 31, one layer of 32
channels and a learning rate of 3e-3, so that a run takes 2,000 steps and not 30,000: what decay
does goes with decay times rate times steps, and the critical decay is so many times larger.

Rate, horizon and decays were chosen after runs that showed where grokking is; the bounds of the
claims were not. The whole of `small` has run with a rate of 4e-3, 1,500 steps and interventions at
step 125: 9 of 22 claims held and 8 were open. lambda_c was 0.31, nu 0.39 (R^2 0.80), grokking at
0.75 took 575 to 700 steps, all heads were the same at 10. Beyond lambda = 1 that rate is too high:
accuracies jump, and only 3 and 2 of 4 seeds ever reached 99 % at 1 and 1.5. At 3e-3 and 2,000
steps two seeds of a network like this one grokked at 0.5, 0.7, 1, 1.5 and 2 after 1,690, 1,340,
1,060, 840 and 590 steps in the mean: hence these. Interventions were then moved to step 50, for
heads differ most there, which is where the paper intervenes; at 125 heads drawn anew made heads
differ more (by 0.038). The perceptron did not grok at any of its decays (best 12 % of the test).

Presets (time on 2 CPU cores):
    small   9 decays, all operations, interventions, 4 seeds; two other networks: 4 minutes (an
            estimate for an idle machine).
    full    the same with 10 seeds, more decays, sizes of the training set and networks.
    paper   p = 97, 4 layers of 8 heads, the paper's 13 decays and rate, its ten seeds and 3,000
            epochs: for an accelerator (python -m experiments.aot plans it).
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 3_000}, "size": {"dim": 40}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    # The task: p, and other shares of all problems to train on besides a half.
    config.modulus = 31
    config.fractions = ()
    # The network.
    config.dim = 32
    config.heads = 4
    config.layers = 1
    # Weight decays of the cohort; the two that are compared, and the one at which heads collapse.
    config.decays = (0.0, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 10.0)
    config.compare = (0.75, 1.5)
    config.collapse = 10.0
    # Whether rate and horizon are the paper's, so that its critical decay is expected.
    config.paper_rate = False
    config.steps = 2_000
    config.batch_size = 128
    config.learning_rate = 3e-3
    config.seeds = 4
    config.eval_every = 25
    # Interventions: at which step (where heads differ most), how many heads are drawn anew, and
    # which share of the norm is left.
    config.change_at = 50
    config.reset_heads = 1
    config.clip_share = 0.8
    # Numbers of heads, and steps in which they come to differ most.
    config.head_counts = ()
    config.peak_steps = 500
    # Other networks, mixers of the zoo or "mlp", and their decays.
    config.networks = ("mlp", "retention")
    config.other_decays = (0.05, 0.2, 0.5, 1.5)
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset == "full":
        config.decays = (
            *(0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5),
            *(2.0, 3.0, 10.0),
        )
        config.fractions = (0.35, 0.7)
        config.seeds = 10
        config.steps = 4_000
        config.head_counts = (1, 2, 4, 8, 16)
        config.networks = ("mlp", "gated_linear_attention", "gated_delta_rule", "retention")
        config.other_decays = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 3.0)
    if preset == "paper":
        config.modulus = 97
        config.dim = 128
        config.heads = 8
        config.layers = 4
        config.decays = (
            *(0.0, 0.001, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.3, 0.5, 0.7, 1.0, 2.0, 10.0),
        )
        config.compare = (1.0, 2.0)
        config.paper_rate = True
        config.steps = 30_000
        config.batch_size = 512
        config.learning_rate = 1e-3
        config.seeds = 10
        config.eval_every = 100
        config.peak_steps = 3_000
        config.change_at = 1_000
        config.reset_heads = 2
        config.head_counts = (1, 2, 4, 8, 16)
        config.networks = ("mlp", "gated_linear_attention", "gated_delta_rule", "retention")
        config.other_decays = (0.003, 0.006, 0.015, 0.02, 0.03, 0.05, 0.07)
    return config
