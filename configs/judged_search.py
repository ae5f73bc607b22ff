"""What an agent that judges what it finds gains (arXiv 2510.00568).

    python -m experiments.judged_search --config=configs/judged_search.py:small \\
        --workdir=runs/judged_search

Worlds of 40 entities named by two of 60 words, six relations, questions of one or two hops; BM25
gives two documents; four turns. The agent is a Llama of two layers. It has nothing to begin with,
so demonstrations are drawn anew for each step: 500 of them, as tuning a language model takes, would
be learned by heart. The utility of what was found is exact; the paper's reranker has no
counterpart.

Study `agents` was run once, with sizes that were set before (one seed, 625 s on a busy machine): of
7 claims 4 hold, two of them barely or emptily. Agents that are paid for judgements stop after one
search (1.03, answers only 1.78) and never answer two hops, so "farming" passes by 0.003 and
"utility-two" as 0 >= 0; right sooner (-0.04) and "utility-one" (0.42) fail. `small` leaves it to
`--config.study=all`. Three runs of study `tabular`
were looked at; experiments/judged_search/tabular.py says what was chosen after the first two. That
the mean of judgements makes the agent right sooner failed in all three, by 0.02.

Study `judges` asks SmolLM2-135M (`make lm` installs it) whether two documents help with a question,
as it is and with adapters that have seen 128 others. As an agent it was not tried: the paper's have
3 and 7 billion parameters, and it does not answer plain questions in the wanted form without
examples in view (`self_specialization`, study `python`). Run once (726 s beside other jobs).

Presets (time on 2 CPU cores):
    small   four seeds of the agent of a few numbers: half a minute. With `--config.study=all` also
            one Llama, 600 steps of demonstrations, 60 updates of 12 questions with 5 answers in
            each of four ways of payment: ten minutes (an estimate).
    full    all studies, 8 and 3 seeds, 2,000 steps of 64 demonstrations, 250 updates of 16
            questions: two hours (an estimate).
    paper   the same as full: the paper's models have 3 and 7 billion parameters.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"tabular_updates": 1200}, "size": {"tabular_seeds": 6}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "tabular"
    config.seed = 0
    # The agent of a few numbers.
    config.tabular_seeds = 4
    config.tabular_updates = 800
    # The Llama.
    config.seeds = 1
    config.dim = 96
    config.heads = 4
    config.layers = 2
    config.hidden = 192
    # Demonstrations: Adam with a warm-up over a tenth of the steps, then a cosine.
    config.steps = 600
    config.batch_size = 32
    config.learning_rate = 3e-3
    # Payment, by GRPO: searches at most; questions an update, answers to each; Adam's rate, and the
    # weight of the divergence from the agent before.
    config.turns = 4
    config.updates = 60
    config.questions = 12
    config.group = 5
    config.reward_rate = 3e-4
    config.kl = 1e-3
    # Questions of the test.
    config.test = 300
    # Study judges: the trained model, observations for its adapters and of the test, steps.
    config.model = "smollm2-135m"
    config.observations = 128
    config.rank = 8
    config.adapter_steps = 32
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 1
    if preset in ("full", "paper"):
        config.study = "all"
        config.tabular_seeds = 8
        config.seeds = 3
        config.steps = 2_000
        config.batch_size = 64
        config.updates = 250
        config.questions = 16
    return config
