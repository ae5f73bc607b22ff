"""Asks which linear mixers of patches tell pictures apart, at softmax attention's size.

Agent attention (arXiv 2312.08874), dynamic differential linear attention (DyDiLA, arXiv 2601.13683)
and Flow-Attention (arXiv 2202.06258) in a vision transformer, against softmax attention and plain
feature maps: the same digits, steps, seeds and number of parameters.

    python -m experiments.image_mixers --config=configs/image_mixers.py:small \\
        --workdir=runs/image_mixers

The settings, presets and expected times are in configs/image_mixers.py.
"""

import jattn
from experiments.functional import parse_mechanisms
from experiments.image_mixers.claims import claims_of
from experiments.image_mixers.figures import draw
from experiments.image_mixers.models import model, names
from experiments.image_mixers.speed import times
from experiments.image_models import tested_on_images, trained_on_images
from jattn.tasks.images import Images, images
from jattn.training import Claim, Run, UsageError


def pictures(config) -> Images:
    """The images asked for."""
    try:
        return images(config.dataset)
    except ValueError as error:
        raise UsageError(f"dataset: {error}") from None


def check(config, found: Images) -> None:
    """Refuses settings that could not work, before anything is computed."""
    for entry in names(config):
        try:
            if not jattn.zoo.info(parse_mechanisms(entry)[0][0]).bidirectional:
                raise ValueError("it has no bidirectional form")
            model(config, entry, found.train.shape[1:])
        except (ValueError, TypeError) as error:
            raise UsageError(f"mechanisms: {entry}: {str(error).splitlines()[0]}") from None


def run_experiment(config, run: Run) -> list[Claim]:
    """Trains all mixers and compares them."""
    found = pictures(config)
    check(config, found)
    rows = {}
    for entry in names(config):
        made = model(config, entry, found.train.shape[1:])
        label = entry.replace(":", "_").replace("=", "")
        params = trained_on_images(run, config, label, made, found, seed=config.seed)
        rows[entry] = run.cached(
            label, lambda made=made, p=params: tested_on_images(made, p, found)
        )
        accuracy = 100 * rows[entry]["test_accuracy"]
        run.note(f"{entry}: {accuracy.mean():.1f} % ({', '.join(f'{x:.1f}' for x in accuracy)})")
    speed = run.cached("speed", lambda: times(config))
    draw(run, rows, speed)
    return claims_of(config, rows, speed)
