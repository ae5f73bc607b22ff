"""How voxels read an image: by place, by content, or from examples in context.

Study `routing`: a query a brain area against maps that know no image and ridge regression, on a
made cortex (arXiv 2505.17329). Study `voxels`: a transformer that turns a few responses of a voxel
into its weights, against ridge regression and the best that there is (arXiv 2505.15813).

    python -m experiments.brain_readout --config=configs/brain_readout.py:small \\
        --workdir=runs/brain_readout

The settings, presets and expected times are in configs/brain_readout.py.
"""

from experiments.brain_readout import routing, voxels
from jattn.training import Claim, Run, run_studies

STUDIES = {"routing": routing.routing, "voxels": voxels.voxels}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
