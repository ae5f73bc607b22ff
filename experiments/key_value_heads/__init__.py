"""Asks what a small cache should keep: few keys and many values, or many keys and few values.

Sigma (2025, arXiv 2501.13629): keys bear compression better than values. Decoders whose caches keep
as many numbers a token, and which have as many parameters, are trained on the same language.

    python -m experiments.key_value_heads --config=configs/key_value_heads.py:small \\
        --workdir=runs/key_value_heads

The settings, presets and expected times are in configs/key_value_heads.py.
"""

from experiments.key_value_heads.decoders import draw, trained, variants
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2501.13629", "Sigma: DiffQKV attention")
SLACK = 0.01  # nats a token


def run_experiment(config, run: Run) -> list[Claim]:
    """Trains with all key and value heads, with few keys, and with few values."""
    rows = {name: trained(run, config, name) for name in variants(config)}
    draw(run, rows)
    loss = {name: float(row["loss"].mean()) for name, row in rows.items()}
    copied = {name: float(row["copied"].mean()) for name, row in rows.items()}

    def note(found):
        return ", ".join(f"{name} {value:.4f}" for name, value in found.items())

    claims = [
        PAPER.claim(
            "few-keys",
            "With a cache of the same size, few keys lose no more than few values: nats a token.",
            loss["few values"],
            loss["few keys"],
            "<=",
            SLACK,
            where="mean of nine tasks: 51.97 with few keys, 51.76 with few values",
            because="it is what few values have in this run",
            note=note(loss),
            seeds=rows["few keys"]["loss"],
        ),
        PAPER.claim(
            "few-keys-copied",
            "The same where a token is copied, which is what attention is for here.",
            copied["few values"],
            copied["few keys"],
            "<=",
            SLACK,
            because="it is what few values have in this run",
            note=note(copied),
            seeds=rows["few keys"]["copied"],
        ),
        PAPER.claim(
            "few-keys-all",
            "Few keys cost nothing against all keys and values: nats a token.",
            loss["all"],
            loss["few keys"],
            "<=",
            SLACK,
            where="mean of nine tasks: 51.97 with a quarter of the key heads, 52.14 with all",
            because="it is what all keys and values have in this run",
            note=f"cache {rows['few keys']['cache']} of {rows['all']['cache']} numbers a token "
            "and layer",
            seeds=rows["few keys"]["loss"],
        ),
    ]
    return claims
