"""Style-based recalibration, SRM (Lee et al. 2019, arXiv 1903.10829).

    y_c = x_c * sigmoid(BN(w_c1 mean(x_c) + w_c2 std(x_c)))

The style of a channel, its mean and standard deviation over space, decides on it alone.

Distinctive: it sees how much a channel varies, which no mean does, with two weights a channel.

Limits: w = 0 gives 1/2 with averages of zero. With a bottleneck over the 2 m numbers instead of
weights for each channel, channels see each other (`mlp=True`, as in arXiv 2310.11198).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count, check_flag
from jattn.mechanisms.frames.kinds import framed_gate
from jattn.mechanisms.kinds import Gate
from jattn.mechanisms.layers.affine import norm_init
from jattn.mechanisms.layers.batch_norm import running_norm, statistics_init
from jattn.mechanisms.layers.bottleneck import bottleneck, bottleneck_init
from jattn.mechanisms.layers.means import deviation_over_space, mean_over_space
from jattn.mechanisms.mechanism import Mechanism


def style_recalibration(
    params: dict,
    x: Float[Array, "b *space c"],
    real: Bool[Array, " b *space"] | None = None,
    *,
    norm=running_norm,
) -> Float[Array, "b *one c"]:
    """A factor for each channel, from its mean and standard deviation.

    Args:
        params: `style` `[c, 2]`, or `down` and `up` of a bottleneck that takes all means, then all
            deviations; `norm` and `statistics` of batch norm.
        x: tokens `[b, t, c]` or images `[b, y, x, c]`.
        real: False where x is padding; default none is. Deviations are those of n - 1 places.
        norm: of what becomes of them, `(params, z) -> z`.

    Returns:
        Factors in (0, 1), with axes of space 1 long.

    Reference:
        arXiv 1903.10829.

    Example:
        >>> params = make(dim=2).init(jax.random.key(0)) | {"style": jnp.zeros((2, 2))}
        >>> style_recalibration(params, jnp.ones((1, 4, 2))).tolist()
        [[[0.5, 0.5]]]
    """
    mean, deviation = mean_over_space(x, real), deviation_over_space(x, real)
    if "style" in params:
        style = params["style"].astype(x.dtype)
        z = mean * style[:, 0] + deviation * style[:, 1]
    else:
        z = bottleneck(params, jnp.concatenate([mean, deviation], axis=-1))
    return jax.nn.sigmoid(norm(params, z))


def make(*, dim: int, mlp: bool = False, reduction: int = 4) -> Gate:
    """Makes the gate.

    Args:
        dim: number of channels m.
        mlp: a bottleneck over all means and deviations, instead of two weights a channel.
        reduction: by how much its hidden layer is narrower than 2 m; it has one unit at least.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> gate = make(dim=8)
        >>> gate.apply(gate.init(jax.random.key(0)), jnp.ones((2, 6, 8))).shape
        (2, 6, 8)
    """
    check_count("dim", dim)
    check_flag("mlp", mlp)
    check_count("reduction", reduction)

    def init(key):
        if mlp:
            own = bottleneck_init(key, dim, reduction, inputs=2 * dim)
        else:
            own = {"style": jax.random.normal(key, (dim, 2))}
        return own | {"norm": norm_init(dim), "statistics": statistics_init(dim)}

    return framed_gate(
        "style_recalibration", dim=dim, init=init, factors=style_recalibration, normed=True
    )


MECHANISM = Mechanism(
    name="style_recalibration",
    title="SRM: style-based recalibration module",
    arxiv="1903.10829",
    family="channel",
    equation="y_c = x_c * sigmoid(BN(w_c1 mean(x_c) + w_c2 std(x_c)))",
    core=style_recalibration,
    make=make,
    cost="linear",
    kind="gate",
    equivariant=True,
    parameters=("style", "norm", "statistics"),
    statistics=("statistics",),
)
