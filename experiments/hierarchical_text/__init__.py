"""Asks whether attention over the tree of phrases reads text better, and stands in for softmax.

Hierarchical self-attention (2025, arXiv 2509.15448): weights that are constant in blocks of the
text's tree generalise better from the same data, cost less, and are so near to softmax's that
they can take their place in a trained model.

    python -m experiments.hierarchical_text --config=configs/hierarchical_text.py:small \\
        --workdir=runs/hierarchical_text

The settings, presets and expected times are in configs/hierarchical_text.py.
"""

import numpy as np

from experiments.hierarchical_text.encoders import (
    ACROSS,
    NAMES,
    SOFTMAX,
    TREE,
    compiled_ratio,
    draw,
    trained,
    weights_of_tree,
)
from jattn.tasks.negated_phrases import WORDS_A_PHRASE
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2509.15448", "Hierarchical self-attention")


def run_experiment(config, run: Run) -> list[Claim]:
    """Trains the encoders, then replaces layers of the one with softmax."""
    rows = {name: trained(run, config, name) for name in NAMES}
    for name, row in rows.items():
        new, known = row["new"].mean(), row["known"].mean()
        run.note(f"{name}: accuracy {new:.3f} on new documents, {known:.3f} on those it learned")
    run.note(f"layers replaced: accuracy {rows[SOFTMAX]['replaced'].mean(1).round(3).tolist()}")
    draw(run, rows)
    length = config.phrases * WORDS_A_PHRASE
    whole = compiled_ratio(config)
    return claims(rows, weights_of_tree(length) / length**2, whole)


def claims(rows: dict[str, dict[str, np.ndarray]], core: float, whole: float) -> list[Claim]:
    """What the paper says, of accuracies by encoder and of two ratios of FLOPs."""
    softmax, tree, across = (rows[name]["new"] for name in (SOFTMAX, TREE, ACROSS))
    replaced = rows[SOFTMAX]["replaced"]
    lost = replaced[0] - replaced[1:]
    return [
        PAPER.claim(
            "tree-from-scratch",
            "Trained on the same documents, the tree reads new ones better than softmax attention: "
            "difference of the accuracies, mean of the seeds.",
            0.02,
            float((tree - softmax).mean()),
            ">=",
            because="less is the noise of the test set",
            note=f"{tree.mean():.3f} and {softmax.mean():.3f}",
            seeds=tree - softmax,
        ),
        PAPER.claim(
            "tree-own",
            "It is the documents' own tree that helps: accuracy above that with a tree that cuts "
            "across phrases, mean of the seeds.",
            0.02,
            float((tree - across).mean()),
            ">=",
            because="less is the noise of the test set",
            note=f"{across.mean():.3f} across phrases",
            seeds=tree - across,
        ),
        PAPER.claim(
            "zero-shot-one",
            "In the trained softmax encoder the tree can replace the first layer: accuracy lost on "
            "the documents that it learned, mean of the seeds.",
            0.05,
            float(lost[0].mean()),
            "<=",
            because="a twentieth is little beside the half above guessing",
            note=f"{replaced[1].mean():.3f} instead of {replaced[0].mean():.3f}",
            seeds=lost[0],
        ),
        PAPER.claim(
            "zero-shot-all",
            "It can replace all layers: the same.",
            0.1,
            float(lost[-1].mean()),
            "<=",
            because="twice what one layer may lose",
            note=f"{replaced[-1].mean():.3f} instead of {replaced[0].mean():.3f}",
            seeds=lost[-1],
        ),
        PAPER.claim(
            "fewer-flops",
            "Weights of the tree over those of softmax attention, at the length of the documents.",
            0.25,
            core,
            "<=",
            because="a quarter is well below what the rest of a layer costs",
            note=f"whole encoders, as compiled: {whole:.2f}",
        ),
    ]
