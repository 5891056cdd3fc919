"""AdcSR, run on diffusers' classes."""
