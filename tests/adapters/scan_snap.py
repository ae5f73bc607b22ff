"""Adapter for the one-layer model of scan-and-snap."""

import jax
import jax.numpy as jnp

from jattn.tasks.sequence_classes import Sequence
from jattn.theory import scan_snap_model as model


def scan_snap_model(case):
    """Loss and its gradients, through the counts form."""
    options, arrays = case.info["options"], case.arrays
    tokens = jnp.asarray(arrays["tokens"])
    params = model.Parameters(jnp.asarray(arrays["Y"]), jnp.asarray(arrays["Z"]))
    batch = Sequence(
        model.counts_of(tokens, params.Y.shape[0]), tokens[:, -1], jnp.asarray(arrays["label"])
    )
    loss, grads = jax.value_and_grad(model.loss)(
        params,
        batch,
        normalize=options["normalize"],
        residual=options["residual"],
        attend_query=options["attn_include_base_token"],
    )
    return {"loss": loss, "dY": grads.Y, "dZ": grads.Z}


ADAPTERS = {("theory_scan_snap_and_pavlovian", "scan_snap_model"): scan_snap_model}
