"""Tokenizers out of GGUF files and local folders, by the `tokenizers` package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jattn.pretrained.gguf import GGUF, metadata_of, read_gguf

SPECIAL = 3  # type of tokens that stand for themselves and are never split
# How text is cut before bytes are merged; others than these are refused.
DIGITS_ONE_BY_ONE = {"smollm": True, "gpt-2": False}
Message = dict[str, str]
MISSING = "tokenizers is not installed: pip install 'jattn[lm]'"


class Tokenizer:
    """From text to token ids and back.

    Args:
        file: a GGUF file with a byte-level BPE tokenizer in it.

    Attributes:
        vocab_size: number of tokens.
        end: the token that ends a turn of a chat.

    Raises:
        ValueError: the file has no tokenizer of this kind.
        ImportError: the package `tokenizers` is not installed.
    """

    def __init__(self, file: GGUF):
        try:
            from tokenizers import AddedToken, decoders, models, pre_tokenizers  # pyright: ignore
            from tokenizers import Tokenizer as Engine  # pyright: ignore
        except ImportError as error:
            raise ImportError(MISSING) from error

        prefix = "tokenizer.ggml."
        model, cut, tokens, kinds, merges, self.end = metadata_of(
            file,
            {
                prefix + "model": str,
                prefix + "pre": str,
                prefix + "tokens": list,
                prefix + "token_type": list,
                prefix + "merges": list,
                prefix + "eos_token_id": int,
            },
        )
        if model != "gpt2" or cut not in DIGITS_ONE_BY_ONE:
            known = ", ".join(DIGITS_ONE_BY_ONE)
            raise ValueError(
                f"{file.path}: expected a tokenizer of model gpt2 and pre {known}, "
                f"got {model} and {cut}"
            )
        if len(tokens) != len(kinds) or len(set(tokens)) != len(tokens):
            raise ValueError(f"{file.path}: expected {len(kinds)} different tokens; it is damaged")
        pairs = [tuple(merge.split(" ")) for merge in merges]
        vocabulary = {token: index for index, token in enumerate(tokens)}
        try:
            engine = Engine(models.BPE(vocabulary, pairs))  # type: ignore
        except Exception as error:
            raise ValueError(f"{file.path}: damaged tokenizer: {error}") from None
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        digits = pre_tokenizers.Digits(individual_digits=True)
        steps = [digits, bytes_] if DIGITS_ONE_BY_ONE[cut] else [bytes_]
        engine.pre_tokenizer = pre_tokenizers.Sequence(steps)  # type: ignore
        engine.decoder = decoders.ByteLevel()  # type: ignore
        named = [t for t, kind in zip(tokens, kinds, strict=True) if kind == SPECIAL]
        engine.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in named])
        self._engine: Any = engine
        self.vocab_size = len(tokens)

    @classmethod
    def from_gguf(cls, path: str | Path) -> "Tokenizer":
        """The tokenizer of a GGUF file."""
        return cls(read_gguf(path))

    @classmethod
    def from_folder(cls, folder: str | Path) -> "Tokenizer":
        """The tokenizer of a local folder of Hugging Face, as its `tokenizer.json` says.

        Its `end` is the first special token, with which texts are padded.

        Raises:
            ValueError: there is no such file, or it is damaged.
            ImportError: the package `tokenizers` is not installed.
        """
        try:
            from tokenizers import Tokenizer as Engine  # pyright: ignore
        except ImportError as error:
            raise ImportError(MISSING) from error
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise ValueError(f"{folder}: expected a tokenizer.json in it, found none")
        try:
            engine = Engine.from_file(str(path))
        except Exception as error:
            raise ValueError(f"{path}: damaged tokenizer: {error}") from None
        made = cls.__new__(cls)
        made._engine, made.vocab_size = engine, engine.get_vocab_size()
        special = [i for i, t in engine.get_added_tokens_decoder().items() if t.special]
        made.end = min(special, default=0)
        return made

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; names of special tokens in it are those tokens. Nothing is added."""
        return self._engine.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], *, special: bool = True) -> str:
        """The text of token ids, with or without special tokens.

        Raises:
            ValueError: an id that is none.
        """
        ids = [int(i) for i in ids]
        for index in ids:
            if not 0 <= index < self.vocab_size:
                raise ValueError(f"ids: expected 0 to {self.vocab_size - 1}, got {index}")
        return self._engine.decode(ids, skip_special_tokens=not special)

    def texts(self, ids: Sequence[int]) -> list[str]:
        """The text of every token by itself."""
        return [self.decode([index]) for index in ids]

    def batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Texts of some lengths, padded behind.

        Returns:
            Token ids `[b, t]`, and a mask `[b, t]`, True where a token is real: what models and
            `jattn.nn.generate` take.
        """
        rows = [self.encode(text) for text in texts]
        length = max((len(row) for row in rows), default=0)
        ids = np.array([row + [self.end] * (length - len(row)) for row in rows], np.int32)
        mask = np.arange(length) < np.array([len(row) for row in rows])[:, None]
        return ids.reshape(len(rows), length), mask
