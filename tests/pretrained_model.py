"""The trained language model of the tests: loaded once a worker, skipped where it is not."""

import functools
import importlib.util

import jax
import pytest
from flax import nnx

from jattn.nn import Llama
from jattn.pretrained.smollm2 import HOW_TO_GET_IT, NAME, PACKAGE

PACKAGES = (PACKAGE, "gguf", "tokenizers")
missing = any(importlib.util.find_spec(name) is None for name in PACKAGES)
needs_smollm2 = pytest.mark.skipif(missing, reason=HOW_TO_GET_IT)


@functools.cache
def smollm2() -> Llama:
    """The model, in float32."""
    with jax.enable_x64(False):
        return Llama.from_gguf(NAME)


@functools.cache
def _program():
    return nnx.jit(lambda model, tokens: model(tokens))


def logits_of(tokens):
    """Logits `[t, vocab]` of one text."""
    return _program()(smollm2(), jax.numpy.asarray(tokens)[None])[0]
