"""A page without network: a stream, what is believed, what the interface does, and an override.

Its script has the policy of `jattn.systems.attention_states` once more; the tests hold the two
together.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.attention_states.world import Beliefs
from jattn.systems import attention_states as states
from jattn.tasks.behaviour_stream import EVENTS, STATES, Stream
from jattn.training.files import write_atomically

TEMPLATE = Path(__file__).with_name("page.html")
MARK = "/* data */"
NAME = "attention_states.html"


def data_of(stream: Stream, belief: Beliefs, options: dict[str, Any]) -> dict[str, Any]:
    """What the page shows: the first episode, as plain numbers."""
    rounded = lambda x: np.asarray(x).round(4).tolist()
    return {
        "states": list(STATES),
        "events": list(EVENTS),
        "counts": np.asarray(stream.counts[0]).tolist(),
        "idle": rounded(stream.idle[0]),
        "breaks": np.asarray(stream.breakpoint[0]).tolist(),
        "truth": np.asarray(stream.states[0]).tolist(),
        "beliefs": rounded(belief.filtered[0]),
        "options": options,
        "patterns": {
            "chunk": list(states.CHUNK),
            "verification": list(states.VERIFICATION),
            "landmarks": list(states.LANDMARKS),
            "workspace": list(states.WORKSPACE),
        },
    }


def page_of(data: dict[str, Any]) -> str:
    """The page as text."""
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    template = TEMPLATE.read_text(encoding="utf-8")
    if MARK not in template:
        raise ValueError(f"page: expected {MARK} in {TEMPLATE.name}, got none")
    return template.replace(MARK, f"const DATA = {text};")


def write(run, stream: Stream, belief: Beliefs, config) -> None:
    """Writes the page into the run's folder."""
    options = {"on": 0.5, "off": 0.35, "dwell": 2, "protect": states.HYPERFOCUSED}
    text = page_of(data_of(stream, belief, options))
    if run.writes:
        write_atomically(run.workdir / NAME, text.encode())
    run.note(f"page: {run.workdir / NAME}")
