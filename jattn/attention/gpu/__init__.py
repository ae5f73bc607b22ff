"""The parts of the GPU kernels of attention; `jattn.attention.pallas_gpu` puts them together."""
