"""What every other part leans on: images, errors, options, the registry, seeds and files."""
