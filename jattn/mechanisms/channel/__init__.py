"""Gates and mixers of channels: what a token does without looking at others, or with few."""
