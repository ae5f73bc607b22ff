"""The maps of a text-to-image denoiser: looked at and changed by the same edits as elsewhere."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Array, Float, Int

from jattn.checks import check_choice
from jattn.lens.edits import Edit
from jattn.lens.taps import LensTaps
from jattn.lens.transformer import OF_CORES, OF_SOFTMAX, stacked, tapped_core
from jattn.nn.diffusion_transformer import DiffusionTransformer

SITES = (*OF_CORES, *OF_SOFTMAX)


class Looked(NamedTuple):
    """What is changed and recorded in one kind of attention.

    Attributes:
        edits: applied in order.
        record: names of sites: q, k, v, logits, probs, z.
    """

    edits: Sequence[Edit] = ()
    record: Sequence[str] = ()


NOTHING = Looked()


def run_denoiser(
    model: DiffusionTransformer,
    images: Float[Array, "b height width channels"],
    time: Float[Array, " b"],
    caption: Int[Array, "b n"],
    *,
    itself: Looked = NOTHING,
    cross: Looked = NOTHING,
) -> tuple[Float[Array, "b height width channels"], dict[str, Array], dict[str, Array]]:
    """Velocities of an edited denoiser, and what the sites of its attention held.

    Args:
        model: of any mechanism with a core of queries, keys and values; `logits` needs softmax.
        images, time, caption: as for the model.
        itself: patches to patches.
        cross: patches to words; `probs` is `[L, b, h, patches, words]`.

    Returns:
        Velocities, records of self-attention, records of cross-attention: `{site: [L, ...]}`.

    Raises:
        ValueError: an unknown site, or an edit that does not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jattn.nn import DiffusionTransformerConfig
        >>> config = DiffusionTransformerConfig(
        ...     vocab_size=9, caption=4, height=4, width=4, patch=2, dim=16, layers=1
        ... )
        >>> model = DiffusionTransformer(config, rngs=nnx.Rngs(0))
        >>> inputs = jnp.zeros((2, 4, 4, 3)), jnp.ones(2), jnp.zeros((2, 4), int)
        >>> run_denoiser(model, *inputs, cross=Looked(record=("probs",)))[2]["probs"].shape
        (1, 2, 4, 4, 4)
    """
    for name, looked in (("itself", itself), ("cross", cross)):
        for site in (*looked.record, *(edit.site for edit in looked.edits)):
            check_choice(f"{name}.record", site, SITES)
    taps: list[tuple[LensTaps, LensTaps]] = []

    def edits(layer: int):
        both = tuple(LensTaps(layer, of.edits, of.record) for of in (itself, cross))
        taps.append(both)  # type: ignore[arg-type]
        return tapped_core(both[0], model.plain_softmax[layer]), tapped_core(both[1], True)

    out = model(images, time, caption, edits=edits)
    found = [stacked([pair[kind].records for pair in taps]) for kind in (0, 1)]
    return out, found[0], found[1]
