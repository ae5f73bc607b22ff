"""How errors travel: failures of redundant heads over layers (P7, P8), chains of memories (P20)."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pavlovian import figures
from experiments.pavlovian.common import claim_of, near, seed_cells
from experiments.power_law import exponent
from jattn.tasks.conditioning import chain, sphere
from jattn.theory import memory_capacity as theory
from jattn.theory.hebbian_memory import nearest
from jattn.training import Claim, Run, sweep

LAYERS, HEADS = (1, 2, 4, 8, 16), (1, 2, 3)
PAIRS, DIM, DELTA = 20, 64, 0.4


def errors_over_layers(run: Run, config) -> list[Claim]:
    """Failures of redundant heads over layers, and chains of memories."""
    return failures(run, config) + chains(run, config)


def failures(run: Run, config) -> list[Claim]:
    """A layer fails if all its heads do; a network fails if one of its layers does."""
    pairs, dim, delta = PAIRS, DIM, DELTA
    deep, wide, cells = LAYERS[-1], HEADS[-1], 16
    each = -(-config.networks // cells)

    def head(key):
        """Whether one head's memory fails for one of its pairs."""
        first, second = jax.random.split(key)
        keys, values = sphere(first, (pairs, dim)), sphere(second, (pairs, dim))
        noise = (keys[0] @ keys[1:].T) @ values[1:]
        return (noise**2).sum() >= delta

    def function(cell):
        keys = jax.random.split(jax.random.key(cell["seed"]), (each, deep * wide))
        fails = jax.lax.map(jax.vmap(head), keys)
        return {"fails": fails.reshape(each, deep, wide)}

    fails = sweep(run, "failures", function, seed_cells(config, cells))["fails"]
    fails = fails.reshape(-1, deep, wide)
    p = float(fails.mean())
    bound = pairs / (delta * dim)
    expected = float(theory.failure_rate(pairs, d_k=dim, d_v=dim, delta=delta))
    where = f"n = {pairs}, d_k = {dim}, delta = {delta:g}"
    claims = [
        claim_of("P7-head", f"a head fails no more often than n / (delta d_k), {where}", bound, p,
                 "<=", where="theorem 9", note=f"{fails.size} heads"),
        near("P7-head-law", f"a head's failure rate from a Gamma law of the noise, {where}",
             expected, p, 0.1, where="theorem 9", derived=True),
    ]  # fmt: skip
    rates = {}
    for heads in HEADS:
        layer = fails[:, :, :heads].all(-1)
        for layers in LAYERS:
            # The layers of a deep network are so many independent shallow ones.
            networks = np.asarray(layer.reshape(-1, layers).any(-1))
            rate = float(networks.mean())
            wanted = float(theory.network_failure(p, heads=heads, layers=layers))
            error = (wanted * (1 - wanted) / len(networks)) ** 0.5
            rates[heads, layers] = rate
            claims.append(
                claim_of(f"P7-{heads}-{layers}", f"network error of {layers} layers, {heads} "
                         "redundant heads, from the head's p", wanted, rate, "~=",
                         max(0.1 * wanted, 3 * error), where="theorem 9",
                         note=f"p = {p:.4f}, {len(networks)} networks; the paper's bound "
                         f"{theory.network_failure(bound, heads=heads, layers=layers):.3f}")
            )  # fmt: skip
    small = [layers for layers in LAYERS if rates[wide, layers] < 0.2]
    depth = exponent(small, [rates[wide, layers] for layers in small])
    width = np.polyfit(HEADS, np.log([rates[heads, 1] for heads in HEADS]), 1)[0]
    claims += [
        near("P8-depth", f"slope of ln r over ln L, {wide} heads", 1.0, depth, 0.1,
             where="theorem 9"),
        near("P8-width", "slope of ln r over heads, one layer: ln p", np.log(p), width, 0.1,
             where="theorem 9"),
    ]  # fmt: skip
    figures.failures(run, rates, p, bound)
    return claims


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
