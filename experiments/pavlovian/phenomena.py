"""The classical protocols, trial by trial (P15-P19), and what softmax makes of them."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.pavlovian import figures
from experiments.pavlovian.common import claim_of, near, random_pairs, seed_cells
from experiments.power_law import exponent
from jattn.attention import attend, masks
from jattn.tasks.conditioning import PROTOCOLS, STIMULI, protocol
from jattn.theory import memory_capacity as theory
from jattn.theory.hebbian_memory import RULES, condition, protocol_strength
from jattn.training import Claim, Run, sweep

MODELS = (*RULES, "softmax")
SHARP = 20.0  # inverse temperature of softmax in the protocols: close to a hard choice


def strengths(model: str, config) -> dict[str, jax.Array]:
    """The response to each stimulus alone after each trial, by protocol.

    All protocols are one batch and the stimuli its heads: each head keeps the same memory, and is
    asked about its own stimulus.

    Returns:
        `[trials, stimuli, outcomes]` for each of `PROTOCOLS`.
    """
    streams = [protocol(name, config.trials_a_phase) for name in PROTOCOLS]
    longest = max(len(stream.cs) for stream in streams)
    codes = jnp.eye(len(STIMULI), 8)

    def batch(rows):
        # Trials after a protocol's end do not reach back.
        rows = [np.pad(x, ((0, longest - len(x)), (0, 0))) for x in rows]
        return jnp.stack([jnp.asarray(rows)] * len(STIMULI), axis=2)

    cs, us = batch([x.cs for x in streams]) @ codes, batch([x.us for x in streams])
    test = jnp.broadcast_to(codes, cs.shape)
    if model == "softmax":
        read = attend(test, cs, us, mask=masks.causal(), scale=SHARP)
    else:
        read, _ = condition(
            test, cs, us, rule=model, alpha=config.alpha, gamma=config.gamma, tau=config.tau
        )
    return {
        name: path[: len(stream.cs)]
        for name, path, stream in zip(PROTOCOLS, read, streams, strict=True)
    }


def protocols(run: Run, config) -> list[Claim]:
    """Acquisition, extinction, blocking, overshadowing and the rest, by every rule."""
    alpha, T = config.alpha, config.trials_a_phase
    settings = ml_collections.FrozenConfigDict(config)  # hashable

    def compute():
        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            return {
                f"{name}-{model}": path
                for model in MODELS
                for name, path in jax.jit(strengths, static_argnums=(0, 1))(model, settings).items()
            }

    found = run.cached("protocols", compute)
    A, B, US, OTHER = 0, 1, 0, 1
    get = lambda name, model: found[f"{name}-{model}"][..., US]
    t = np.arange(1, T + 1)
    learned = 1 - (1 - alpha) ** t
    gap = lambda one, other: float(np.abs(one - other).max())
    acquired = {rule: get("acquisition", rule)[:, A] for rule in MODELS}
    faded = {rule: get("extinction", rule)[T:, A] for rule in MODELS}
    claims = [
        claim_of("P15", f"acquisition by the delta rule is 1 - (1 - alpha)^t, alpha = {alpha:g}: "
                 "largest difference", 0.0, gap(acquired["delta"], learned), "<=", 1e-6,
                 where="acquisition", derived=True),
        claim_of("P15-hebb", "acquisition by Hebb's rule is alpha t, without bound", 0.0,
                 gap(acquired["hebb"], alpha * t), "<=", 1e-6, where="acquisition", derived=True),
        claim_of("P15-bcm", "acquisition by the BCM rule stops: its threshold catches up, and "
                 "alpha (tau - 1) (1 - (1 - 1/tau)^t) is all it comes to", 0.0,
                 gap(acquired["bcm"], alpha * (config.tau - 1) * (1 - (1 - 1 / config.tau) ** t)),
                 "<=", 1e-6, where="acquisition", derived=True),
        claim_of("P16", "extinction by the delta rule is V (1 - alpha)^t", 0.0,
                 gap(faded["delta"], learned[-1] * (1 - alpha) ** t), "<=", 1e-6,
                 where="extinction", derived=True),
        claim_of("P16-hebb", "extinction by Hebb's rule: nothing changes", 0.0,
                 gap(faded["hebb"], alpha * T), "<=", 1e-6, where="extinction", derived=True),
        claim_of("P16-decay", "a fading memory forgets by time, V gamma^t", 0.0,
                 gap(faded["decay"], acquired["decay"][-1] * config.gamma**t), "<=", 1e-6,
                 where="extinction", derived=True),
    ]  # fmt: skip
    worst = max(
        gap(get(name, "delta"), protocol_strength(
            protocol(name, T).cs, protocol(name, T).us[:, US], alpha=alpha))
        for name in PROTOCOLS
    )  # fmt: skip
    blocked = {
        rule: float(get("blocking", rule)[-1, B] / get("blocking_control", rule)[-1, B])
        for rule in MODELS
    }
    shadow = {rule: get("overshadowing", rule)[:, A] for rule in MODELS}
    # With both keys present the pair learns at twice the rate, and each takes half.
    shared = (1 - (1 - 2 * alpha) ** t) / 2
    claims += [
        claim_of("P15-all", "the delta rule is the Rescorla-Wagner rule: largest difference over "
                 "all protocols", 0.0, worst, "<=", 1e-6, where="version 3"),
        claim_of("P17", f"blocking by the delta rule: V_B against the control is "
                 f"(1 - alpha)^{T}", (1 - alpha) ** T, blocked["delta"], "~=", 1e-4,
                 where="blocking", derived=True),
        claim_of("P17-hebb", "Hebb's rule does not block", 1.0, blocked["hebb"], "~=", 1e-4,
                 where="blocking", derived=True),
        claim_of("P18", "overshadowing by the delta rule: V_A ends at one half", 0.5,
                 float(shadow["delta"][-1]), "~=", 1e-3, where="overshadowing", derived=True),
        claim_of("P18-path", "on its way V_A is (1 - (1 - 2 alpha)^t) / 2", 0.0,
                 gap(shadow["delta"], shared), "<=", 1e-6, where="overshadowing", derived=True),
    ]  # fmt: skip
    early = {rule: get("latent_inhibition", rule)[T:, A] for rule in MODELS}
    rebound = {rule: found[f"rebinding-{rule}"][-1, A] for rule in MODELS}
    gamma, steps = config.gamma, config.gamma**T
    claims += [
        claim_of("P15-latent", "no latent inhibition by the delta rule, a known failing of "
                 "Rescorla-Wagner: pre-exposure changes acquisition by", 0.0,
                 gap(early["delta"], acquired["delta"]), "<=", 1e-6,
                 where="latent inhibition", derived=True),
        claim_of("P11-protocol", "rebinding by the delta rule: the new outcome outweighs the old "
                 "by", float(learned[-1] - (1 - alpha) ** T * learned[-1]),
                 float(rebound["delta"][OTHER] - rebound["delta"][US]), "~=", 1e-6,
                 where="rebinding", derived=True),
        claim_of("P11-protocol-hebb", "rebinding by Hebb's rule: the outcomes weigh the same", 0.0,
                 float(rebound["hebb"][OTHER] - rebound["hebb"][US]), "~=", 1e-6,
                 where="rebinding", derived=True),
        claim_of("P11-protocol-decay", "rebinding in a fading memory: old over new is gamma^T",
                 steps, float(rebound["decay"][US] / rebound["decay"][OTHER]), "~=", 1e-6,
                 where=f"rebinding, gamma = {gamma:g}", derived=True),
        claim_of("S1", "softmax learns in one trial: response after the first, then on", 0.0,
                 gap(acquired["softmax"], 1.0), "<=", 1e-6, where="softmax", derived=True),
        claim_of("S2", "softmax extinguishes by proportion, T / (T + t)", 0.0,
                 gap(faded["softmax"], T / (T + t)), "<=", 1e-6, where="softmax", derived=True),
        claim_of("S3", "softmax shows latent inhibition, t / (T + t), which no linear rule does",
                 0.0, gap(early["softmax"], t / (T + t)), "<=", 1e-6,
                 where="softmax", derived=True),
        claim_of("S4", "softmax does not block: it averages outcomes, and all were the US", 1.0,
                 blocked["softmax"], "~=", 1e-6, where="softmax", derived=True),
    ]  # fmt: skip
    second = _second_order(run, config)
    angles, response = _generalisation(run)
    claims += [
        claim_of("P20-second", "second-order conditioning, B -> A then A -> US in two memories of "
                 "the delta rule: (1 - (1 - alpha)^t)^2", 0.0, gap(second, learned**2), "<=",
                 1e-6, where="second-order conditioning", derived=True),
        claim_of("P19", "generalisation: the response to a stimulus at angle theta is cos theta",
                 0.0, gap(response, np.cos(angles)), "<=", 1e-6, where="generalisation",
                 derived=True),
    ]  # fmt: skip
    figures.protocols(run, found, second, config)
    figures.generalisation(run, angles, response)
    return claims


def _second_order(run: Run, config) -> np.ndarray:
    """The response to B after t trials of B -> A and t of A -> US, `[T]`."""

    def compute():
        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            A, B = jnp.eye(2, 8)
            repeat = lambda x: jnp.broadcast_to(x, (1, config.trials_a_phase, 1, len(x)))
            learn = lambda cs, us, test: condition(
                test, repeat(cs), repeat(us), rule="delta", alpha=config.alpha
            )[0]
            return {"response": learn(A, jnp.ones(1), learn(B, A, repeat(B)))[0, :, 0, 0]}

    return run.cached("second_order", compute)["response"]


def _generalisation(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """The response to stimuli at angles to the one that was conditioned."""

    def compute():
        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            angles = jnp.linspace(0, np.pi, 37)
            tests = jnp.stack([jnp.cos(angles), jnp.sin(angles)], -1)
            cs, us = jnp.array([1.0, 0.0])[None, None, None], jnp.ones((1, 1, 1, 1))
            ask = lambda test: condition(test[None, None, None], cs, us)[0].ravel()[0]
            return {"angles": angles, "response": jax.vmap(ask)(tests)}

    stored = run.cached("generalisation", compute)
    return stored["angles"], stored["response"]


def softmax(run: Run, config) -> list[Claim]:
    """Where softmax departs from the linear theory: by temperature and by load."""
    dim, sizes = 64, tuple(config.softmax_pairs)
    sharpness = np.array(config.sharpness)
    weak = np.array([0.05, 0.1, 0.2, 0.4])

    def function(cell, pairs):
        cs, us = random_pairs(jax.random.key(cell["seed"]), trials=8, pairs=pairs, dim=dim)
        soft = lambda b: attend(cs, cs, us, scale=b, implementation="reference")
        scores = jnp.einsum("bthd,bshd->bhts", cs, cs)
        centred = scores - scores.mean(-1, keepdims=True)
        # To first order softmax is a mean of all values, and the Hebbian read of centred scores.
        read = jnp.einsum("bhts,bshe->bthe", centred, us) / pairs
        average = us.mean(1, keepdims=True)

        def departure(b):
            rest = soft(b) - average
            size = jnp.linalg.norm(rest - b * read) / jnp.linalg.norm(b * read)
            return size

        error = lambda b: ((soft(b) - us) ** 2).sum(-1).mean()
        return {
            "error": jnp.stack([error(b) for b in sharpness.tolist()]),
            "departure": jnp.stack([departure(b) for b in weak.tolist()]),
        }

    claims, curves = [], {}
    for pairs in sizes:
        found = sweep(run, f"softmax_{pairs}", lambda cell, n=pairs: function(cell, n),
                      seed_cells(config, 8))  # fmt: skip
        curves[pairs] = {name: values.mean(0) for name, values in found.items()}
        wanted = theory.softmax_error(pairs, d_k=dim, inverse_temperature=sharpness)
        measured = curves[pairs]["error"]
        linear = theory.noise_power(pairs, d_k=dim)
        where = f"n = {pairs}, d_k = {dim}"
        best = int(np.argmin(measured))
        claims.append(
            claim_of(f"S5-{pairs}", f"softmax at inverse temperature {sharpness[best]:g} "
                     f"interferes less than the linear memory's (n - 1) / d_k, {where}",
                     float(linear), float(measured[best]), "<", where="softmax", derived=True)
        )  # fmt: skip
        at = config.sharpness.index(8.0) if 8.0 in config.sharpness else best
        claims.append(
            near(f"S6-{pairs}", f"softmax error from its mean field, {where}, inverse temperature "
                 f"{sharpness[at]:g}", wanted[at], measured[at], 0.1, where="softmax", derived=True)
        )  # fmt: skip
    slope = exponent(weak, curves[sizes[0]]["departure"])
    claims.append(
        near("S7", "as the inverse temperature b vanishes softmax becomes a mean and a Hebbian "
             "read: log-log slope of its relative departure over b", 1.0, slope, 0.1,
             where="softmax", derived=True)
    )  # fmt: skip
    figures.softmax(run, sharpness, curves, dim)
    return claims
