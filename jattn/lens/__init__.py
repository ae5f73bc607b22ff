"""Looking inside models and intervening: sites, edits as data, readouts, methods.

`run(model, tokens, edits=..., record=...)` is the entry; `jattn.lens.edits` lists the sites.
"""

from jattn.lens.cumulative import rollout
from jattn.lens.denoiser import Looked, run_denoiser
from jattn.lens.edits import (
    SITES,
    At,
    BudgetMove,
    Edit,
    HeadAffine,
    KeyReweight,
    LogitBias,
    Replace,
    ResidAdd,
    ablate,
    heads_of,
    move_budget,
)
from jattn.lens.run import explain, resume, run
from jattn.lens.transformer import effective_attention, transformer_sites

__all__ = [
    "SITES",
    "At",
    "BudgetMove",
    "Edit",
    "HeadAffine",
    "KeyReweight",
    "LogitBias",
    "Looked",
    "Replace",
    "ResidAdd",
    "ablate",
    "effective_attention",
    "explain",
    "heads_of",
    "move_budget",
    "resume",
    "rollout",
    "run",
    "run_denoiser",
    "transformer_sites",
]
