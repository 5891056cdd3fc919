"""How sure a number is: means and differences over images of scenes, and metrics of whole sets.

Images of one scene are not independent, so scenes are what is resampled, flipped and swapped. What these methods hold
and where they fail is measured by ``python -m tests.bench.statistics``; ``docs/statistics.md`` has the figures.
"""
