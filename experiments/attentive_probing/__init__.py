"""Attentive poolers on equal terms: accuracy by parameters and operations (arXiv 2506.10178).

Study `attributes`: tokens of which two, flagged, have to be told apart: the mean, one query and
several. Study `digits`: an encoder is trained here to fill in hidden patches, and frozen; every
pooler of the zoo reads it. Study `bags`: branches that are kept apart and kept from the loudest
instances (ACMIL, arXiv 2311.07125).

    python -m experiments.attentive_probing --config=configs/attentive_probing.py:small \\
        --workdir=runs/attentive_probing

The settings, presets and expected times are in configs/attentive_probing.py.
"""

from experiments.attentive_probing import attributes, bags, digits
from jattn.training import Claim, Run, run_studies

STUDIES = {"attributes": attributes.attributes, "digits": digits.digits, "bags": bags.bags}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
