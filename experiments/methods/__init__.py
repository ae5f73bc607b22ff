"""Methods of attention on small models: what each of them promises, measured."""
