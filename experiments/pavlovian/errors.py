"""How errors travel: failures of heads, alone and together (P7, P8), chains of memories (P20)."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.margins import CLEAR, standard_error
from experiments.pavlovian import figures
from experiments.pavlovian.common import claim_of, near, seed_cells
from jattn.tasks.conditioning import chain, sphere
from jattn.theory import memory_capacity as theory
from jattn.theory.hebbian_memory import nearest
from jattn.training import Claim, Run, sweep
from jattn.training.claims import IDENTITY

HEADS, WIDTHS = 3, (256, 64)  # heads, and sizes of the stimuli that they share
PAIRS, DIM, DELTA = 20, 64, 0.4


def errors_over_layers(run: Run, config) -> list[Claim]:
    """Failures of redundant heads, and chains of memories."""
    return failures(run, config) + chains(run, config)


def failures(run: Run, config) -> list[Claim]:
    """How often heads fail, alone and all together, that read the same stimuli or their own.

    The paper takes the heads of a layer to fail independently. Heads of one model project the same
    stimuli, which adds their overlap to the noise of every head:

        E |noise|^2 = (n - 1) (1 / d_k + 1 / d_model).
    """
    pairs, dim, delta = PAIRS, DIM, DELTA
    cells = 16
    each = -(-config.networks // cells)

    def alone(key):
        """The noise of heads with stimuli of their own, `[h]`."""
        return jnp.stack([noise(*own_pairs(k)) for k in jax.random.split(key, HEADS)])

    def own_pairs(key):
        first, second = jax.random.split(key)
        return sphere(first, (pairs, dim)), sphere(second, (pairs, dim))

    def noise(keys, values):
        return (((keys[0] @ keys[1:].T) @ values[1:]) ** 2).sum()

    def shared(key, width):
        """The noise of heads that project the same stimuli of so many dimensions, `[h]`."""
        of_stimuli, of_maps = jax.random.split(key)
        cs, us = sphere(of_stimuli, (2, pairs, width))
        maps = jax.random.normal(of_maps, (HEADS, 2, width, dim)) / dim**0.5
        return jnp.stack([noise(cs @ key_map, us @ value_map) for key_map, value_map in maps])

    def function(cell):
        keys = jax.random.split(jax.random.key(cell["seed"]), each)
        found = {"own": jax.lax.map(alone, keys)}
        for width in WIDTHS:
            found[f"shared_{width}"] = jax.lax.map(lambda key, w=width: shared(key, w), keys)
        return found

    power = sweep(run, "failures", function, seed_cells(config, cells))  # [cells, networks, h]
    fails = {name: values >= delta for name, values in power.items()}
    one = {name: values.mean((1, 2)) for name, values in fails.items()}  # by cell
    together = {name: values.all(-1).mean(1) for name, values in fails.items()}
    expected = float(theory.failure_rate(pairs, d_k=dim, d_v=dim, delta=delta))
    bound = pairs / (delta * dim)
    where = f"n = {pairs}, d_k = {dim}, delta = {delta:g}"
    claims = [
        claim_of("P7-head", f"a head fails no more often than n / (delta d_k), {where}", bound,
                 float(one["own"].mean()), "<=", where="theorem 9", kind=IDENTITY,
                 note=f"{fails['own'].size} heads"),
        near("P7-head-law", "the failure rate of a head with stimuli of its own, from a Gamma law "
             f"of the noise, {where}", expected, one["own"].mean(), 0.1, where="theorem 9",
             derived=True, interval=_two_errors(one["own"])),
    ]  # fmt: skip
    for width in WIDTHS:
        name = f"shared_{width}"
        wanted = theory.shared_noise_power(pairs, d_k=dim, d_model=width)
        mean = power[name].mean((1, 2))
        said = f"heads that project the same stimuli, d_model = {width}, {where}"
        ratio = together[name] / one[name] ** HEADS
        claims += [
            near(f"P7-noise-{width}", f"mean noise power of {said}", wanted, mean.mean(), 0.05,
                 where="theorem 9", derived=True, interval=_two_errors(mean)),
            claim_of(f"P7-rate-{width}", f"they fail more often than heads with stimuli of their "
                     f"own: failure rate, {said}", float(one["own"].mean()),
                     float(one[name].mean()), ">", where="theorem 9", derived=True,
                     interval=_two_errors(one[name])),
            claim_of(f"P8-{width}", f"and not independently: P(all {HEADS} fail) / p^{HEADS}, "
                     f"{said}", 1.0, float(ratio.mean()), ">", where="theorem 9, which assumes "
                     "equality", derived=True, interval=_two_errors(ratio),
                     note=f"p = {one[name].mean():.3f}, together {together[name].mean():.4f}"),
        ]  # fmt: skip
    figures.failures(run, one, together, HEADS)
    return claims


def _two_errors(values: np.ndarray) -> tuple[float, float]:
    """Two standard errors to each side of a mean over cells."""
    reach = CLEAR * standard_error(values)
    return float(values.mean()) - reach, float(values.mean()) + reach


def chains(run: Run, config) -> list[Claim]:
    """What a chain of memories gives back, with and without clean-up between them."""
    deep, wide = 6, 3
    sizes = {32: (16, 32, 64), 64: (32, 64, 128, 192, 256), 128: (64, 128, 256)}

    def chained(key, pairs, dim):
        items, codes = chain(key, pairs=pairs, layers=deep, heads=wide, d_k=dim)
        count = jnp.arange(pairs)
        hit, first, spread, rows = [], [], [], dict.fromkeys((1, wide), count)
        raw = items[0]
        noise, follow = [], []
        for layer in range(deep):
            values = items[layer + 1]
            memories = jnp.einsum("hnd,ne->hde", codes[layer], values)
            for heads in (1, wide):
                # Clean-up: the nearest item replaces the read; heads are averaged before.
                asked = codes[layer, :heads][:, rows[heads]]
                read = jnp.einsum("hnd,hde->ne", asked, memories[:heads]) / heads
                rows[heads] = nearest(read, values)
                fresh = jnp.einsum("hnd,hde->ne", codes[layer, :heads], memories[:heads]) / heads
                spread.append(((fresh - values) ** 2).sum(-1).mean())
                first.append((nearest(fresh, values) == count).mean())
                hit.append((rows[heads] == count).mean())
            raw = raw @ memories[0]
            noise.append(((raw - values) ** 2).sum(-1).mean())
            follow.append((nearest(raw, values) == count).mean())
        shape = (deep, 2)
        return {
            "clean": jnp.array(hit).reshape(shape),
            "alone": jnp.array(first).reshape(shape),
            "spread": jnp.array(spread).reshape(shape),
            "raw": jnp.array(follow),
            "noise": jnp.array(noise),
        }

    claims, curves = [], {}
    for dim, grid in sizes.items():
        for pairs in grid:

            def function(cell, pairs=pairs, dim=dim):
                keys = jax.random.split(jax.random.key(cell["seed"]), config.chains)
                found = jax.lax.map(lambda key: chained(key, pairs, dim), keys)
                return jax.tree.map(lambda leaf: leaf.mean(0), found)

            found = sweep(run, f"chain_{dim}_{pairs}", function, seed_cells(config, 8))
            curves[dim, pairs] = found = {name: x.mean(0) for name, x in found.items()}
            clean, alone, raw = found["clean"], found["alone"], found["raw"]
            if dim == 64 and pairs >= 128:
                product = np.prod(alone[:2, 0])
                where = f"A -> B -> C, d = 64, n = {pairs}"
                claims += [
                    near(f"P20-{pairs}", f"{where}, clean-up between: accuracy is the product of "
                         "the layers' own", product, clean[1, 0], 0.05, where="theorem 9",
                         because="the layers' own are this run's",
                         note=f"one layer {alone[0, 0]:.4f}"),
                    claim_of(f"P20-raw-{pairs}", f"{where}, no clean-up: errors compound faster "
                             "than independent ones", float(product), float(raw[1]), "<",
                             where="theorem 9", note="accuracy",
                             because="the layers' own are this run's"),
                ]  # fmt: skip
            if dim == 64 and pairs in (64, 128):
                power = theory.chained_noise(pairs, np.array([1, 2, 3]), d_k=dim)
                claims += [
                    near(f"P20-noise-{pairs}-{layers + 1}", f"no clean-up, d = 64, n = {pairs}: "
                         f"noise power after {layers + 1} layers", power[layers],
                         found["noise"][layers], 0.05, where="theorem 9", derived=True)
                    for layers in range(3)
                ]  # fmt: skip
    redundant = curves[64, 192]
    gain = redundant["clean"][-1]
    claims.append(
        near("P20-heads", f"{wide} heads with codes of their own, averaged, are {wide} times the "
             "width: noise power, d = 64, n = 192", theory.noise_power(192, d_k=64 * wide),
             redundant["spread"][:, 1].mean(), 0.02, where="theorem 9", derived=True,
             note=f"accuracy after {deep} layers {gain[1]:.3f}, with one head {gain[0]:.3f}")
    )  # fmt: skip
    figures.chains(run, curves)
    return claims
