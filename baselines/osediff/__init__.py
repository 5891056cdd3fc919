"""OSEDiff, run on diffusers' classes; its prompts, colours and tiles are SeeSR's."""
