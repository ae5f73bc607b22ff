"""Rollouts of masked layers against closed forms and bounds (B5), and with a residual (B7)."""

import math

import jax
import jax.numpy as jnp
import numpy as np

import jattn
from experiments.plots import COLORS, label, panels
from experiments.position_bias.networks import PAPER, masking
from jattn.theory import position_bias as theory
from jattn.training import Claim, Run
from jattn.training.claims import IDENTITY

FAR = 64  # positions of the decay's rollout, so that the edge does not matter
SCORES = 0.3  # deviation of the weights of random layers
DRAWS = 8


def _layers(key, count: int, dim: int, scale: float) -> list[theory.Layer]:
    keys = jax.random.split(key, 3 * count)
    draw = [scale * jax.random.normal(k, (dim, dim)) for k in keys]
    return [theory.Layer(*draw[3 * i : 3 * i + 3]) for i in range(count)]


def _rollout(config, mask: str, count: int, *, length: int, scale: float, seed: int = 0, **more):
    """Maps `[l, t, t]` and their product `[t, t]` of random layers on random tokens."""
    dim = 16
    of_layers, of_tokens = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), seed))
    x = jax.random.normal(of_tokens, (1, length, dim))
    options = masking(config, mask) | more
    _, maps = theory.self_attention_network(_layers(of_layers, count, dim, scale), x, **options)
    return np.asarray(maps[:, 0]), np.asarray(theory.rollout(maps[:, :, None])[0])


def rollouts(run: Run, config) -> list[Claim]:
    """Exact forms where scores are zero, and bounds where they are not."""
    length, depths = config.length, tuple(config.depths)

    def compute():
        even = [_rollout(config, "causal", n, length=length, scale=0.0)[1] for n in depths]
        fading = [
            _rollout(config, "decay", n, length=FAR, scale=0.0, decay=0.223)[1][-1, ::-1]
            for n in depths
        ]
        found = {"even": np.stack(even), "fading": np.stack(fading)}
        for mask in ("causal", "prefix", "window"):
            reach = theory.layers_to_reach(length, config.window) if mask == "window" else 1
            prefix = config.prefix if mask == "prefix" else 1
            over = []
            for seed in range(DRAWS):
                for n in depths:
                    maps, product = _rollout(
                        config, mask, n, length=length, scale=SCORES, seed=seed
                    )
                    smallest = float(maps[maps > 0].min())
                    bound = [
                        theory.influence_bound(j, smallest, n, prefix=prefix, reach=reach)
                        for j in range(prefix + 1, length + 1)
                    ]
                    over.append((product[:, prefix:].max(0) / np.array(bound)).max())
            found[f"over_{mask}"] = np.array(over)
            deep = [
                _rollout(config, mask, 8 * depths[-1], length=length, scale=SCORES, seed=s)
                for s in range(DRAWS)
            ]
            found[f"first_{mask}"] = np.stack([product[-1, :prefix] for _, product in deep])
            found[f"smallest_{mask}"] = np.array([maps[maps > 0].min() for maps, _ in deep])
        spread = [
            _rollout(config, "none", 4 * depths[-1], length=length, scale=SCORES, seed=s)[1]
            for s in range(DRAWS)
        ]
        found["rank"] = np.array([np.ptp(p, axis=0).max() for p in spread])
        return found

    found = run.cached("rollouts", compute)
    exact = [theory.cesaro_power(length, n) for n in depths]
    law = [[theory.decay_rollout(d, 0.223, n) for d in range(FAR // 2 + 1)] for n in depths]
    off = max(
        np.abs(row[: FAR // 2 + 1] - want).max()
        for row, want in zip(found["fading"], law, strict=True)
    )
    modes = [int(row.argmax()) for row in found["fading"]]
    wanted = [math.floor((n - 1) / (math.exp(0.223) - 1)) for n in depths]
    first = found["even"][:, -1, 0]
    gaps = np.abs(found["even"] - np.stack(exact)).max()
    curve = _one_rotary_layer()
    _draw(run, config, found, law)
    shown = ", ".join(f"{n}: {p:.3f}" for n, p in zip(depths, first, strict=True))
    claims = [
        PAPER.claim("B5-cesaro", "even causal layers are powers of the Cesaro matrix: largest "
                    "difference", 0.0, float(gaps), "<=", 1e-5, derived=True, kind=IDENTITY,
                    note=f"first position's share by depth: {shown}"),
        PAPER.claim("B5-decay", "decaying layers are a negative binomial far from the edge: "
                    "largest difference", 0.0, float(off), "<=", 1e-4, derived=True, kind=IDENTITY),
        PAPER.claim("B5-mode", "depth pushes the peak back to (L - 1) / (e^m - 1): largest "
                    f"difference in positions, m = 0.223, L = {depths}", 0.0,
                    float(np.abs(np.subtract(modes, wanted)).max()), "<=", 1.0, derived=True,
                    note=f"peaks at {modes}"),
        PAPER.claim("B5-rotary", "one rotary layer falls off as exp(-c d^2 theta^2) with c = s/2, "
                    "s the score at distance 0: c / s over distances to theta d = 0.6", 0.5,
                    float(curve.mean()), "~=", 0.02, where="the rotary theorem",
                    interval=(float(curve.min()), float(curve.max())),
                    note=f"{curve.min():.3f} to {curve.max():.3f}"),
        PAPER.claim("B5-none", f"without a mask {4 * depths[-1]} layers favour no position by "
                    "structure: largest difference between the rows of the rollout", 0.0,
                    float(np.median(found["rank"])), "<=", 0.01, where="no mask",
                    because="rows that agree to a hundredth have forgotten their own place",
                    seeds=found["rank"]),
    ]  # fmt: skip
    for mask, what in (
        ("causal", "the first position"),
        ("prefix", f"the first {config.prefix} positions together"),
        ("window", "the first position, slower"),
    ):
        taken = found[f"first_{mask}"].sum(-1)
        claims += [
            PAPER.claim(f"B5-bound-{mask}", f"random layers, mask {mask}: no later position keeps "
                        "more than its bound: largest ratio to it over depths and draws", 1.0,
                        float(found[f"over_{mask}"].max()), "<=", 1e-5, where="main theorem",
                        derived=True, kind=IDENTITY),
            PAPER.claim(f"B5-first-{mask}", f"random layers, mask {mask}: {what} takes the last "
                        f"one's rollout after {8 * depths[-1]} layers", 0.99,
                        float(np.median(taken)), ">=", where="main theorem",
                        because="it tends to 1", seeds=taken),
        ]  # fmt: skip
    kept = found["first_prefix"].min(-1) / found["smallest_prefix"]
    claims.append(
        PAPER.claim("B5-share-prefix", "each position of the prefix keeps a share of its own: the "
                    "smallest, over the smallest weight of any layer", 1.0, float(kept.min()), ">=",
                    where="prefix mask", derived=True, kind=IDENTITY,
                    note="the first layer gives every row that much, and the others average rows")
    )  # fmt: skip
    return claims


def _one_rotary_layer() -> np.ndarray:
    """c / s of one rotary layer whose queries and keys are all alike."""
    theta, size = 0.05, 8.0
    distance = np.arange(1, 13)
    unit = jnp.zeros((1, 13, 1, 2)).at[..., 0].set(1.0)
    # One pair of channels turns by one radian a position: positions are scaled instead.
    angle = theta * jnp.arange(13)
    turned = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)[None, :, None] * unit[..., :1]
    _, weights = jattn.attend(
        turned * size, turned, turned, mask=jattn.masks.causal(), scale=1.0, return_weights=True
    )
    row = np.asarray(weights)[0, 0, -1, ::-1]
    return -np.log(row[1:] / row[0]) / (distance * theta) ** 2 / size


def residual(run: Run, config) -> list[Claim]:
    """What the first and the last position keep where layers add to their input."""
    length, depth = config.length, 400
    plain = theory.cesaro_power(length, config.depths[-1])
    kept = theory.cesaro_power(length, config.depths[-1], 0.5)
    deep = theory.cesaro_power(length, depth, 1 - 1 / depth)[-1]
    limit = theory.cesaro_flow(length)[-1]
    shape = [float(deep[0]), float(deep[length // 2]), float(deep[-1])]
    figure, axes = panels(1, 1, width=4.0, height=3.0)
    for color, (name, row) in zip(
        COLORS,
        {
            f"{config.depths[-1]} layers, no residual": plain[-1],
            f"{config.depths[-1]} layers, half kept": kept[-1],
            "ever deeper, 1/L added": limit,
        }.items(),
        strict=False,
    ):
        axes[0, 0].plot(np.arange(1, length + 1), row, marker="o", ms=3, color=color, label=name)
    label(axes[0, 0], "input position", "share of the last output")
    run.save_figure(figure, "residual", "Rollout of even causal layers, last row. With a residual "
                    "that outweighs deep layers the ends are favoured, and nothing collapses "
                    "however deep: a U.")  # fmt: skip
    return [
        PAPER.claim("B7-slower", f"{config.depths[-1]} even causal layers that keep half of their "
                    "input leave the last position more of its own: share over that without", 1.0,
                    float(kept[-1, -1] / max(plain[-1, -1], 1e-300)), ">", derived=True,
                    kind=IDENTITY),
        PAPER.claim("B7-limit", f"layers that add 1/L of their output do not collapse: last "
                    f"position's own share after {depth} layers", math.exp(1 / length - 1),
                    shape[2], "~=", 0.01, derived=True,
                    note="the exponential of the Cesaro matrix less the identity"),
        PAPER.claim("B7-U", "and favour both ends: the smaller of first and last over the middle",
                    1.0, min(shape[0], shape[2]) / shape[1], ">", derived=True,
                    note=f"first {shape[0]:.3f}, middle {shape[1]:.3f}, last {shape[2]:.3f}"),
    ]  # fmt: skip


def _draw(run: Run, config, found, law) -> None:
    figure, axes = panels(1, 2, width=3.8, height=3.0)
    positions = np.arange(1, config.length + 1)
    for color, depth, even, fading, want in zip(
        COLORS, config.depths, found["even"], found["fading"], law, strict=False
    ):
        axes[0, 0].plot(positions, even[-1], marker="o", ms=3, color=color, label=f"{depth} layers")
        axes[0, 1].plot(fading[: FAR // 2], color=color, label=f"{depth} layers")
        axes[0, 1].plot(want[: FAR // 2], ":", color="black", linewidth=1)
    label(axes[0, 0], "input position", "share of the last output", "causal, even")
    label(axes[0, 1], "distance back", "", "causal with decay, m = 0.223")
    run.save_figure(figure, "rollouts", "Rollout by depth. Left: even causal layers, all flows to "
                    "the first position. Right: a decay holds it back; dotted, the negative "
                    "binomial.")  # fmt: skip
