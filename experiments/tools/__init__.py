"""Tools around the experiments: the docs that are generated, estimates, tunings, measurements."""
