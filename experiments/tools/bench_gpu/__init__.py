"""Attention and recurrences on a GPU: our kernels and their rivals, timed in turn in one process.

    make bench-gpu                                         all rows that 9 minutes are enough for
    python -m experiments.tools.bench_gpu --lengths=4096   some lengths
    python -m experiments.tools.bench_gpu --rehearse       everything but the GPU, at toy sizes

First every option of the kernels is compared with the dense definition in float32 on the GPU
itself, forward and backward. Then each row times forward, and forward and backward, in bfloat16
with 16384 tokens and 2048 / d heads: the median of `--repeats` runs, the contenders taking turns.
What does not run, or does not fit, is a dash. TFLOP/s count what a mask leaves of 4 b h t^2 d, 3.5
times with the backward pass. Recurrences are the same number of tokens and heads, in sequences of
8192; their rivals are the chunked form in XLA and `jax.lax.scan` over tokens. What was found goes
to docs/gpu.json, with the device, its driver, and the versions. Exit status 3 if a kernel is wrong;
without a GPU, one line says so, and the status is 0.
"""
