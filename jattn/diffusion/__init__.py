"""Denoising diffusion as pure functions: noise schedules, samplers, guidance.

Times run from 0 (clean) to 1 (noise). A model predicts the velocity `v = a eps - s x0` of
`x_t = a x0 + s eps`, from which both the noise and the clean image follow.
"""

from jattn.diffusion.samplers import classifier_free, ddim_step, ddpm_step, sample
from jattn.diffusion.schedules import (
    clean_and_noise,
    cosine_schedule,
    linear_schedule,
    noised,
    velocity,
    velocity_loss,
)

__all__ = [
    "classifier_free",
    "clean_and_noise",
    "cosine_schedule",
    "ddim_step",
    "ddpm_step",
    "linear_schedule",
    "noised",
    "sample",
    "velocity",
    "velocity_loss",
]
