"""The ground floor of Pallas kernels, which know neither engine: `jattn.pallas.tpu`, `.gpu`."""
