"""Mechanisms that compare all queries with all keys, over `jattn.attend`."""
