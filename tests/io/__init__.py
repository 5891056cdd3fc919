"""What a file means, through every door: run, score, upscale and validate read the same numbers, or say the same no."""
