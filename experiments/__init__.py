"""Reproductions, a package each, named as their binaries; `python -m experiments.NAME --help`."""
