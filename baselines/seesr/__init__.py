"""SeeSR: Stable Diffusion 2 steered by the LR image, its tags and the tokens of their tagger."""
