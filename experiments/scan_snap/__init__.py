"""The parts of scan-and-snap; `experiments.scan_and_snap` runs them."""
