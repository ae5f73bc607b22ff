"""Writes one page that shows the inside of a language model on a prompt.

    make lm
    python -m experiments.view --prompt="The capital of France is"
    python -m experiments.view --prompt="..." --edit=ablate:18.6,17.4 --edit=hide:0@12-29

Attention by layer and head, sinks, heads that copy, what each layer would say, the next token; and
with edits the same beside them. The page needs no network and no server; its keys are listed on it.

Edits, in the order given: ablate:LAYER.HEAD[,...] silences heads; scale:LAYER.HEAD[,...]=FACTOR
scales them; hide:TOKEN[,...][@FROM-TO] hides tokens from all others, in some layers;
weigh:TOKEN[,...]=WEIGHT[@FROM-TO] multiplies the attention they get. All count from 0.
"""

import json
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NoReturn

from experiments.flags import Parser
from experiments.language_model import language_model
from experiments.view.contents import contents
from experiments.view.edits import parse_edits
from jattn.pretrained.smollm2 import NAME
from jattn.training import UsageError

LONGEST = 256  # tokens; maps grow with their square


def page(found: dict) -> str:
    """The page as text: a template with the numbers in it."""
    template = resources.files("experiments.view").joinpath("page.html").read_text("utf-8")
    # In a script only "</" could end it early.
    return template.replace("__CONTENTS__", json.dumps(found).replace("</", "<\\/"))


def view(prompt: str, edits: Sequence[str], model: str) -> str:
    """The page of a prompt.

    Raises:
        UsageError: no such model, a prompt that is too short or too long, or an edit that cannot
            be read.
    """
    language = language_model(model)
    length = len(language.tokenizer.encode(prompt))
    if not 2 <= length <= LONGEST:
        raise UsageError(f"--prompt: expected 2 to {LONGEST} tokens, got {length}")
    config = language.model.config
    sizes = dict(layers=config.layers, heads=config.heads, length=length)
    try:
        parsed = parse_edits(edits, **sizes)
    except ValueError as error:
        raise UsageError(f"--edit: {error}") from error
    return page(contents(language, prompt, parsed, edits))


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; see the module's docstring."""
    parser = Parser("view", __doc__)
    parser.add_argument("--prompt", required=True, help="the text")
    parser.add_argument("--edit", action="append", default=[], help="see above; may be repeated")
    where = "a GGUF file, or a folder of Hugging Face; default: %(default)s"
    parser.add_argument("--model", default=NAME, help=where)
    parser.add_argument("--out", default="view.html", help="the page; default: %(default)s")
    chosen = parser.parse_args(argv)
    try:
        text = view(chosen.prompt, chosen.edit, chosen.model)
        Path(chosen.out).write_text(text, encoding="utf-8")
    except UsageError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"--out: {chosen.out} cannot be written: {error.strerror or error}")
    print(f"page: {chosen.out} ({len(text) / 1e6:.1f} MB)")
    sys.exit(0)


if __name__ == "__main__":
    main()
