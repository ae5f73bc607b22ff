"""From beliefs to an interface: hysteresis against flicker, a wizard to agree with, and a page."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.attention_states import figures, page
from experiments.attention_states.world import PAPER, beliefs, streams, switches
from experiments.margins import standard_error
from jattn.systems import attention_states as states
from jattn.training import Claim, Run

ON, OFF, DWELL = 0.5, 0.35, 2
# Of the paper's comparison with a wizard: share of agreement, and kappa.
CONCORDANCE, KAPPA = 0.84, 0.71


def acted_on(belief: np.ndarray, breakpoint: np.ndarray, protect: int | None) -> np.ndarray:
    """States that the policy acts on, `[episodes, windows]`."""
    run = lambda b, k: states.hysteresis(b, k, on=ON, off=OFF, dwell=DWELL, protect=protect)
    return np.asarray(jax.jit(jax.vmap(run))(jnp.asarray(belief), jnp.asarray(breakpoint)))


def wizard(
    key: jax.Array, truth: np.ndarray, breaks: np.ndarray, slips: float, protect: int | None
) -> np.ndarray:
    """What somebody does by the same policy who sees states one window late, and whose hand slips.

    A slip lasts one window: another state, any of the three.
    """
    of_slip, of_other = jax.random.split(key)
    late = jnp.concatenate([truth[:, :1], truth[:, :-1]], axis=1)
    meant = acted_on(np.asarray(jax.nn.one_hot(late, 4)), breaks, protect)
    other = (meant + jax.random.randint(of_other, meant.shape, 1, 4)) % 4
    return np.asarray(jnp.where(jax.random.bernoulli(of_slip, slips, meant.shape), other, meant))


def agreement(first: np.ndarray, second: np.ndarray) -> states.Agreement:
    """Agreement of states, over all windows."""
    return states.agreement(jnp.asarray(first.ravel()), jnp.asarray(second.ravel()), 4)


def policy(run: Run, config) -> list[Claim]:
    """Accuracy and flicker of beliefs and of the policy, and its agreement with a wizard."""
    stream = streams(jax.random.key(config.seed), config.policy_episodes, config.windows)
    truth, breaks = np.asarray(stream.states), np.asarray(stream.breakpoint)
    belief = beliefs(stream)
    held = acted_on(belief.filtered, breaks, None)
    protected = acted_on(belief.filtered, breaks, states.HYPERFOCUSED)
    by = {
        "one window": belief.memoryless.argmax(-1),
        "filter": belief.filtered.argmax(-1),
        "hysteresis": held,
    }
    right = {name: (found == truth).mean(1) for name, found in by.items()}
    flicker = {name: switches(found) for name, found in by.items()}
    key = jax.random.key(config.seed + 1)
    watched = wizard(key, truth, breaks, config.slips, None)
    watched_guarded = wizard(key, truth, breaks, config.slips, states.HYPERFOCUSED)
    agreed, guarded = agreement(watched, held), agreement(watched_guarded, protected)
    kappas = np.array([agreement(*pair).kappa for pair in zip(watched, held, strict=True)])
    spread = 2 * standard_error(kappas)
    chance = (CONCORDANCE - KAPPA) / (1 - KAPPA)
    figures.episode(run, stream, belief, held)
    figures.confusion(run, agreed.confusion)
    page.write(run, stream, belief, config)
    many = f"{config.policy_episodes} episodes of {config.windows} windows"
    ours = "an independent program had {} on 100 episodes, standard error 0.004"
    mean = {name: float(values.mean()) for name, values in right.items()}
    claim = PAPER.claim
    return [
        claim(
            "bayes-one-window", "the best that can be told from one window alone: accuracy", 0.741,
            mean["one window"], "~=", 0.015, because=ours.format(0.741), note=many,
        ),
        claim(
            "bayes-filter", "the best that can be told causally: accuracy", 0.874, mean["filter"],
            "~=", 0.015, because=ours.format(0.874), note=many,
        ),
        claim(
            "hysteresis-accuracy", "hysteresis costs little accuracy: the filter's less its", 0.05,
            mean["filter"] - mean["hysteresis"], "<=", because="an independent program lost 0.025",
            seeds=right["filter"] - right["hysteresis"],
        ),
        claim(
            "hysteresis-flicker", "and the interface changes less often than the likeliest state: "
            "changes an episode", flicker["filter"], flicker["hysteresis"], "<",
            because="it is what the filter's likeliest state has here",
            note=f"{switches(truth):.1f} in truth, {flicker['one window']:.1f} from one window",
        ),
        claim(
            "wizard", "the policy agrees substantially with a wizard who is one window late and "
            f"slips {config.slips:.0%} of the time: kappa", 0.61, agreed.kappa, ">=",
            because="kappa above 0.61 is usually called substantial",
            interval=(agreed.kappa - spread, agreed.kappa + spread),
            note=f"agreement {agreed.observed:.2f}; {guarded.observed:.2f} and {guarded.kappa:.2f} "
            "where hyperfocus is left at breaks only; in the paper, with people, "
            f"{CONCORDANCE} and {KAPPA}",
        ),
        claim(
            "wizard-chance", f"the paper's agreement {CONCORDANCE} and kappa {KAPPA} imply this "
            "agreement by chance", 0.448, chance, "~=", 5e-4, derived=True, kind="identity",
        ),
    ]  # fmt: skip
