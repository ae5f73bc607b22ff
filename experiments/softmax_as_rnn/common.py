"""What the studies share: the paper they are about."""

from jattn.training import Paper

PAPER = Paper("arXiv 2507.23632", "On the expressiveness of softmax attention")
