"""ZoomLDM: a latent diffusion model of satellite images at four zooms, made to agree with an LR image."""
