from tests.experiments.test_sparse_attention import toy
from experiments.sparse_attention import run_experiment
from jattn.training import Run
def test_it(tmp_path):
    config = toy(study="halos")
    with Run.open(tmp_path, config, name="sparse_attention") as run:
        run_experiment(config, run)
