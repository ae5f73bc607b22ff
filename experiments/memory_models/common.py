"""What the studies share: the papers they are about."""

from jattn.training import Paper

TITANS = Paper("arXiv 2501.00663", "Titans")
MIRAS = Paper("arXiv 2504.13173", "Miras")
