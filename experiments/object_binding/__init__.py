"""Whether two patches show the same object, read by four probes (arXiv 2510.24709).

Study `codes`: made patches with an identity that has no label. Study `encoder`: the layers of an
encoder that was trained here to fill in hidden patches of images with look-alikes, and what its
filling loses without the subspace that the probe found.

    python -m experiments.object_binding --config=configs/object_binding.py:small \\
        --workdir=runs/object_binding

The settings, presets and expected times are in configs/object_binding.py.
"""

from experiments.object_binding import codes, encoder
from jattn.training import Claim, Run, run_studies

STUDIES = {"codes": codes.codes, "encoder": encoder.encoder}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
