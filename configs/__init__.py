"""One config an experiment: a file with `PRESETS` and `get_config(preset)`."""
