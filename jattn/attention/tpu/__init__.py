"""The parts of the TPU kernels of attention; `jattn.attention.pallas_tpu` puts them together."""
