"""Asks whether turning attention makes a language model answer from what it has read.

Methods against hallucination, most of them made for images, on a text: VHR (arXiv 2412.13949),
gaze heads (2606.14703), AAI (2026), VAR (2503.03321), GIFT (2510.22067), selective token emphasis
(2501.12206), LocoRE and saliency (2601.20279), CARVE (2509.06461), and how a context is forgotten
(TVC, 2503.13360). Three facts stand in the role of the image, and a question asks for one of them.

    python -m experiments.language_model_faithfulness \\
        --config=configs/language_model_faithfulness.py:small \\
        --workdir=runs/language_model_faithfulness

The settings, presets and expected times are in configs/language_model_faithfulness.py.
"""

from experiments.language_model_faithfulness.forgetting import forgetting
from experiments.language_model_faithfulness.heads import heads
from experiments.language_model_faithfulness.maps import maps
from experiments.language_model_faithfulness.readouts import readouts
from jattn.training import Claim, Run, run_studies

STUDIES = {"heads": heads, "maps": maps, "readouts": readouts, "forgetting": forgetting}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
