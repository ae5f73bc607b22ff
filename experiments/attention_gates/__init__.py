"""Which gate of channels sees what: twelve channel attentions on equal terms (arXiv 2310.11198).

Study `dispersion`: series whose noisiest channel decides, which means alone cannot tell. Study
`imagery`: made recordings of imagined movements, the gates inside BaseNet. In each, all gates are
trained side by side on the same examples.

    python -m experiments.attention_gates --config=configs/attention_gates.py:small \\
        --workdir=runs/attention_gates

The settings, presets and expected times are in configs/attention_gates.py.
"""

from experiments.attention_gates import dispersion, imagery
from jattn.training import Claim, Run, run_studies

STUDIES = {"dispersion": dispersion.dispersion, "imagery": imagery.imagery}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
