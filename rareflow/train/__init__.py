"""Training: chips (data) -> latents (cached) -> stages (vae, prior, control) -> a checkpoint with its card."""
