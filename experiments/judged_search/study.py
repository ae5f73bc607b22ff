"""Agents that are paid for answers alone, and for judgements in some ways."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.judged_search import figures
from experiments.judged_search.agent import (
    Settings,
    demonstrated,
    paid,
    questions_of,
    search,
    settings_of,
    tested,
)
from experiments.judged_search.episodes import Pay
from experiments.judged_search.tabular import PAPER
from jattn.tasks import fictional_search as task
from jattn.training import Claim, Run

PAYS = {
    "answer only": Pay(0.0, 0.0),
    "sum": Pay(1.0, 0.0),
    "mean": Pay(0.0, 1.0),
    "mean, of answers": Pay(0.0, 1.0, 0.0),
}
FIELDS = ("match", "reward", "searches", "judged")
SHOWN = 6  # trajectories that are kept


def measured(run: Run, config, seed: int) -> dict[str, np.ndarray]:
    """Agents of one seed: on the way, and in the test with each number of turns."""
    settings = settings_of(config)
    weights = demonstrated(run, config, seed)
    of_test, of_rows, of_closed = jax.random.split(jax.random.key(seed + 1), 3)
    test = lambda agent, turns: tested(settings, agent, of_test, config.test, turns)
    found, agents = {}, {"demonstrations": weights}
    with run.progress("agents", len(PAYS)) as advance:
        for number, (name, pay) in enumerate(PAYS.items()):
            key = jax.random.fold_in(jax.random.key(seed + 2), number)
            keys = jax.random.split(key, config.updates)
            agents[name], logs = paid(settings, weights, jax.tree.map(jnp.float32, pay), keys)
            found |= {f"{name}/on the way/{field}": np.asarray(logs[field]) for field in FIELDS}
            advance(1)
    for name, agent in agents.items():
        found |= {f"{name}/{field}": value for field, value in test(agent, config.turns).items()}
    for turns in range(1, config.turns + 1):
        found[f"mean/turns {turns}"] = test(agents["mean"], turns)["match"]
    found["closed"] = tested(settings, agents["mean"], of_closed, config.test, 0)["match"]
    shown = ("demonstrations", "mean")
    return found | {f"{name}/rows": rows(settings, agents[name], of_rows) for name in shown}


def rows(settings: Settings, weights, key) -> np.ndarray:
    """Tokens of a few trajectories, and behind them the gold answer's."""
    asked = questions_of(key, SHOWN)
    made = search(settings, weights, asked, key, turns=settings.turns)
    return np.concatenate([np.asarray(made.tokens), np.asarray(asked.answer)], axis=1)


def agents(run: Run, config) -> list[Claim]:
    """Trains agents, and tests them in new worlds."""
    seeds = range(config.seed, config.seed + config.seeds)
    found = [run.cached(f"agents_{s}", lambda s=s: measured(run, config, s)) for s in seeds]
    of = {name: np.stack([row[name] for row in found]) for name in found[0]}
    figures.agents(run, of, list(PAYS))
    for name in ("demonstrations", "mean"):
        for row in of[f"{name}/rows"][0]:
            run.note(f"{name}: {task.show(row[:-2])}  [{task.show(row[-2:])}]")
    each = lambda values: values if len(found) > 1 else None
    half = config.updates // 2
    early = {name: of[f"{name}/on the way/match"][:, :half].mean(1) for name in PAYS}
    match = {name: of[f"{name}/match"] for name in ("demonstrations", *PAYS)}
    searches = {name: of[f"{name}/searches"] for name in match}
    said = lambda values: ", ".join(f"{n} {np.mean(x):.3f}" for n, x in values.items())
    sooner = early["mean"] - early["answer only"]
    farmed = searches["sum"] - searches["mean"]
    hops = match["mean"] - match["mean, of answers"]
    budget = of[f"mean/turns {config.turns}"][:, 1] - of["mean/turns 1"][:, 1]
    chance = 1 / task.ENTITIES
    bound = chance + 3 * np.sqrt(chance * (1 - chance) / config.test)
    claim = PAPER.claim
    return [
        claim(
            "gain", "Payment improves on demonstrations whose judgements are guesses: gain of "
            "exact match with the mean of judgements.", 0.0,
            float((match["mean"] - match["demonstrations"]).mean()), ">",
            because="0 is no gain", seeds=each((match["mean"] - match["demonstrations"]).mean(1)),
            note=said(match),
        ),
        claim(
            "sooner", "Judgements that are paid, by their mean, make the agent right sooner than "
            "the answer alone: difference over the first half of updates.", 0.0,
            float(sooner.mean()), ">", where="the ablation of rewards", seeds=each(sooner),
            note=said(early),
        ),
        claim(
            "farming", "Their sum, the paper's reward, makes it search more than their mean: "
            "difference.", 0.0, float(farmed.mean()), ">", derived=True, seeds=each(farmed),
            note=said(searches),
        ),
        claim(
            "utility-two", "If what has the next fact on the way is useful, and not only what has "
            "the answer, questions of two hops are answered better: difference.", 0.0,
            float(hops[:, 1].mean()), ">=", derived=True, seeds=each(hops[:, 1]),
        ),
        claim(
            "utility-one", "and those of one hop as well: difference.", 0.0,
            float(hops[:, 0].mean()), "~=", 0.1, derived=True, seeds=each(hops[:, 0]),
        ),
        claim(
            "budget", "More turns help with two hops: gain of the last over one.", 0.0,
            float(budget.mean()), ">", where="the budget of turns", seeds=each(budget),
            note=", ".join(
                f"{n} turns {of[f'mean/turns {n}'].mean(0)[0]:.2f} and "
                f"{of[f'mean/turns {n}'].mean(0)[1]:.2f}" for n in range(1, config.turns + 1)
            ),
        ),
        claim(
            "faithful", "Right answers come from what was accepted: share of right ones among "
            "trajectories whose accepted documents hold all facts, over the share among all.", 1.0,
            float((of["mean/right when faithful"] / of["mean/match"].mean(1)).mean()), ">",
            because="1 is no relation", note=f"faithful {of['mean/faithful'].mean():.3f}, right "
            f"then {of['mean/right when faithful'].mean():.3f}; judged right "
            f"{of['mean/judged'].mean():.3f}",
        ),
        claim(
            "closed", "Without a search nothing can be known: exact match.", bound,
            float(of["closed"].mean()), "<=", kind="identity",
            because="one of forty, and three standard errors",
        ),
    ]  # fmt: skip
