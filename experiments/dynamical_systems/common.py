"""What the studies share."""

from jattn.training import Paper

PAPER = Paper("arXiv 2405.15731", "Understanding the differences in foundation models")
claim_of = PAPER.claim
