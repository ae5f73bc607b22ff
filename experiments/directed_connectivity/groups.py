"""Two groups of subjects, in one of which one link is weaker: what tests of all links say.

Each subject is a series, of which measures of all links are taken. Labels of subjects are permuted,
never moments. Coefficients of the channels as they are differ where the link does; standardised
ones and spectral measures also where something else changed with it: a variance, a path.
Besides, what the paper's counts of quoted essays give.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.stats import f_oneway

from experiments.directed_connectivity import figures
from experiments.directed_connectivity.common import (
    CHANNELS,
    LINKS,
    OFF,
    PAPER,
    coefficients,
    name,
    noise,
)
from experiments.directed_connectivity.network import LEVEL, grid
from jattn.theory import autoregression as ar
from jattn.theory import directed_connectivity as dc
from jattn.theory import group_tests as gt
from jattn.training import Claim, Run

WEAK = LINKS[0]  # 0 -> 1
MEASURES = ("coefficients", "standardised", "generalised PDC", "direct DTF")
# Of 18 each, who could not quote from the essay they had just written.
COULD_NOT = (15, 2, 2)
SUBJECTS = 18


def measures_of(series: jax.Array, order: int, points: int) -> jax.Array:
    """Four measures of all links of one subject, `[4, 4, 4]`; of coefficients, sums over lags."""
    fit = ar.fit_autoregression(series, order)
    standard = ar.fit_autoregression(series / series.std(0), order)
    spectra = dc.spectral(standard.coefficients, standard.covariance, grid(points))
    return jnp.stack(
        [
            fit.coefficients.sum(0),
            standard.coefficients.sum(0),
            dc.pdc(spectra.coefficients, standard.covariance).mean(0),
            dc.direct_dtf(spectra).mean(0),
        ]
    )


def tested(config, seed: int) -> dict[str, np.ndarray]:
    """Of each repetition and measure: differences of the groups and their p values."""
    sizes = config.groups
    strong = jnp.asarray(coefficients(), jnp.float32)
    lag, sink, source = (slice(None), *WEAK)
    weak = strong.at[lag, sink, source].multiply(sizes.weakened)
    label = jnp.repeat(jnp.arange(2), sizes.subjects)
    sigma = jnp.asarray(noise(), jnp.float32)

    def subject(key, which):
        of_series, of_gain = jax.random.split(key)
        gain = 1 + sizes.spread * jax.random.normal(of_gain, (CHANNELS, CHANNELS))
        own = jnp.where(which == 1, weak, strong) * jnp.where(jnp.asarray(OFF), gain, 1.0)
        series = ar.sample_autoregression(of_series, own, sigma, sizes.length)
        return measures_of(series, config.network.order, config.network.frequencies)

    def one(key):
        of_subjects, of_labels = jax.random.split(key)
        values = jax.vmap(subject)(jax.random.split(of_subjects, len(label)), label)
        values = values.reshape(len(label), -1)
        orders = gt.draw_permutations(of_labels, sizes.permutations, len(label))
        # Labels only are permuted, so that this is the same as permuting subjects.
        shares = label[orders].astype(values.dtype)
        n = sizes.subjects
        null = jnp.abs((shares @ values - (1 - shares) @ values) / n)
        difference = (2 * label - 1) @ values / n
        p = gt.permutation_p_values(jnp.abs(difference), null)
        shape = (len(MEASURES), CHANNELS, CHANNELS)
        return difference.reshape(shape), p.reshape(shape)

    keys = jax.random.split(jax.random.key(seed), sizes.repetitions)
    difference, p = jax.jit(lambda keys: lax.map(one, keys))(keys)
    return {"difference": np.asarray(difference), "p": np.asarray(p)}


def groups(run: Run, config) -> list[Claim]:
    """How often the link that is weaker is found, and how many others are."""
    sizes, seed = config.groups, config.seed
    found = run.cached("groups", lambda: tested(config, seed + 1))
    flags = np.stack(
        [[gt.false_discovery_q(jnp.asarray(p), OFF) <= LEVEL for p in each] for each in found["p"]]
    )
    power = flags[:, :, *WEAK].mean(0)
    others = (flags & OFF).sum((2, 3)).mean(0) - power
    figures.groups(run, found["difference"].mean(0), flags.mean(0), MEASURES)
    said = ", ".join(
        f"{measure} {power[i]:.2f} and {others[i]:.2f}" for i, measure in enumerate(MEASURES)
    )
    note = f"{sizes.repetitions} repetitions; found, and others beside it: {said}"
    hits = [np.repeat([1.0, 0.0], [k, SUBJECTS - k]) for k in COULD_NOT]
    variance_ratio = f_oneway(*hits)
    return [
        PAPER.claim(
            "weaker-link", f"between two groups of {sizes.subjects} the link {name(WEAK)}, weaker "
            "in one, is found by its coefficients: how often", 0.8, float(power[0]), ">=",
            because="it is the power that studies aim at", note=note,
        ),
        PAPER.claim(
            "no-other-link", "and no other: others a repetition", 0.2, float(others[0]), "<=",
            because="0.05 are expected, of the rate of false discoveries beside one true one",
        ),
        PAPER.claim(
            "ddtf-others", "direct DTF calls links different that are the same in both groups: "
            "links a repetition", 0.2, float(others[-1]), ">", derived=True,
            note="those of which 0 -> 1 is a part of a path, or whose channel has less variance",
        ),
        PAPER.claim(
            "quotes", "of 18 each, 15, 2 and 2 could not quote what they had written: p of an "
            "analysis of variance", 0.001, float(variance_ratio.pvalue), "<",
            because="it is far from chance",
            note=f"F(2, 51) = {variance_ratio.statistic:.2f}; an F of 79.98 that summaries give "
            "cannot come from these counts: the direction stands, that number does not",
        ),
    ]  # fmt: skip
