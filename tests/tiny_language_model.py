"""A language model of two layers that knows nothing, and whole words for tokens."""

import re
import sys

import numpy as np
from flax import nnx

from experiments.language_model import LanguageModel
from jattn.nn import Llama, LlamaConfig

VOCABULARY = 512


class Words:
    """A tokenizer whose tokens are words with the space in front of them, numbered as they come."""

    end = 0

    def __init__(self):
        self._ids: dict[str, int] = {"<end>": 0}

    def encode(self, text):
        found = re.findall(r" ?\w+| ?[^\w\s]|\s", text)
        return [self._ids.setdefault(word, len(self._ids)) for word in found]

    def decode(self, ids, *, special=True):
        names = dict(enumerate(self._ids))
        return "".join(names.get(int(i), "?") for i in ids)

    def texts(self, ids):
        return [self.decode([i]) for i in ids]

    def batch(self, texts):
        rows = [self.encode(text) for text in texts]
        length = max(map(len, rows))
        tokens = np.array([row + [0] * (length - len(row)) for row in rows], np.int32)
        return tokens, np.arange(length) < np.array([len(row) for row in rows])[:, None]


def tiny_language_model(path="", layers=2) -> LanguageModel:
    """Another one for each number of layers; `path` is not looked at."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, dim=16, layers=layers, heads=4, kv_heads=2, hidden=24
    )
    return LanguageModel(Llama(config, rngs=nnx.Rngs(0)), Words())


def use_it(monkeypatch, package, layers=2):
    """All modules of an experiment load it instead of the trained one."""
    made = tiny_language_model(layers=layers)
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{package}.") and hasattr(module, "language_model"):
            monkeypatch.setattr(module, "language_model", lambda path: made)
