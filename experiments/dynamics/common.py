"""What the studies share."""

from jattn.training import Claim

PAPER = "arXiv 2405.15731"


def claim_of(id, statement, predicted, measured, relation, tolerance, *, section="", note=""):
    """A claim about this paper."""
    source = f"{PAPER}{', ' + section if section else ''}"
    return Claim(id, statement, source, predicted, measured, relation, tolerance, note=note)
