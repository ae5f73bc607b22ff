"""Rounds of preference for a log-linear captioner, and for a small Llama."""

import jax
import numpy as np

from experiments.self_injection import figures
from experiments.self_injection.captioners import (
    Captioner,
    linear_captioner,
    linear_taught,
    llama_captioner,
    llama_taught,
)
from experiments.self_injection.rounds import Arm, Settings, improved
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2509.11287", "APASI: self-injected hallucinations")


def arms(config) -> dict[str, Arm]:
    """The method, and what it is compared with."""
    rates = (config.rate,) * config.rounds
    return {
        "method": Arm(rates),
        "uniform": Arm(rates, late=False),
        "any object": Arm(rates, likely=False),
        "curriculum": Arm(tuple(config.curriculum)),
    }


def settings_of(config, sizes) -> Settings:
    """How pairs are made and learned."""
    return Settings(
        sizes.pairs, sizes.steps, sizes.batch_size, sizes.learning_rate, config.beta,
        config.candidates, config.test,
    )  # fmt: skip


def _all_arms(config, sizes, captioner: Captioner, params, seed: int) -> dict[str, np.ndarray]:
    found = {}
    for name, arm in arms(config).items():
        values = improved(captioner, params, arm, settings_of(config, sizes), seed)
        found |= {f"{name}/{key}": value for key, value in values.items()}
    return found


def linear(run: Run, config) -> list[Claim]:
    """The log-linear captioner."""
    captioner = linear_captioner()

    def one(seed: int) -> dict[str, np.ndarray]:
        params = linear_taught(jax.random.key(seed), config.linear_steps)
        return _all_arms(config, config.linear_dpo, captioner, params, seed)

    seeds = range(config.seed, config.seed + config.linear_seeds)
    rows = [run.cached(f"linear_{seed}", lambda seed=seed: one(seed)) for seed in seeds]
    return _claims(run, config, "linear", rows)


def llama(run: Run, config) -> list[Claim]:
    """The small Llama."""
    captioner = llama_captioner(config)

    def one(seed: int) -> dict[str, np.ndarray]:
        params = llama_taught(run, config, seed)
        return _all_arms(config, config.llama_dpo, captioner, params, seed)

    seeds = range(config.seed, config.seed + config.seeds)
    rows = [run.cached(f"llama_{seed}", lambda seed=seed: one(seed)) for seed in seeds]
    return _claims(run, config, "llama", rows)


def _claims(run: Run, config, study: str, rows: list[dict[str, np.ndarray]]) -> list[Claim]:
    of = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    names = list(arms(config))
    figures.draw(run, study, of, names)
    first, last = of["method/chair"][:, 0], of["method/chair"][:, -1]
    fall = 1 - last / first
    recall = of["method/recall"][:, -1] - of["method/recall"][:, 0]
    late = of["method/late"][:, -1] - of["uniform/late"][:, -1]
    likely = last - of["any object/chair"][:, -1]
    harder = last - of["curriculum/chair"][:, -1]
    seeds = lambda values: values if len(rows) > 1 else None
    shown = ", ".join(f"{name} {of[f'{name}/chair'][:, -1].mean():.3f}" for name in names)
    notes = {name: of[f"{name}/notes"].mean((0, 1)) for name in names}
    gains = notes["method"]
    claim = PAPER.claim
    return [
        claim(
            f"{study}-chair", "Mentions of what is not there become fewer: share of CHAIR_i that "
            "is gone.", 0.2, float(fall.mean()), ">=",
            because="an independent program's log-linear captioner lost half",
            seeds=seeds(fall), note=f"{first.mean():.3f} before; after: {shown}",
        ),
        claim(
            f"{study}-recall", "And no less of what is there is mentioned: change of recall.", 0.0,
            float(recall.mean()), ">=", where="the abstract", seeds=seeds(recall),
            note=f"{of['method/recall'][:, 0].mean():.3f} to "
            f"{of['method/recall'][:, -1].mean():.3f}; sentences "
            f"{of['method/length'][:, 0].mean():.2f} to {of['method/length'][:, -1].mean():.2f}",
        ),
        claim(
            f"{study}-late", "Replacing late sentences more often helps the late ones: difference "
            "of their share of wrong mentions from that of replacing all alike.", 0.0,
            float(late.mean()), "<", where="why positions are weighted", seeds=seeds(late),
            note=f"late {of['method/late'][:, 0].mean():.3f} before, "
            f"{of['method/late'][:, -1].mean():.3f} after, uniform "
            f"{of['uniform/late'][:, -1].mean():.3f}; early "
            f"{of['method/early'][:, 0].mean():.3f}, {of['method/early'][:, -1].mean():.3f}, "
            f"{of['uniform/early'][:, -1].mean():.3f}",
        ),
        claim(
            f"{study}-likely", "Objects that go together make better pairs than any other ones: "
            "difference of CHAIR_i.", 0.0, float(likely.mean()), "<", where="the ablation",
            seeds=seeds(likely), note="an independent program found none; pairs told apart "
            f"{notes['method'][2]:.3f}, {notes['any object'][2]:.3f}; guides that are there "
            f"{gains[3]:.3f}, {notes['any object'][3]:.3f}",
        ),
        claim(
            f"{study}-curriculum", "Fewer and fewer replacements do better than always as many: "
            "difference of CHAIR_i.", 0.0, float(harder.mean()), ">",
            because="the schedule is our own, the paper's is not public", seeds=seeds(harder),
            note=f"log-probabilities of captions changed by {gains[0]:.2f}, of worse ones by "
            f"{gains[1]:.2f}",
        ),
    ]  # fmt: skip
