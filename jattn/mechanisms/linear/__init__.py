"""Mechanisms whose cost is linear in the number of tokens, most of them over `jattn.recur`."""
