"""SAMSR: one step of a distilled Swin UNet whose starting noise follows the masks of Segment Anything.

Nothing of the authors' code or weights is here: the code has no licence, so the user fetches both, and it runs in a
guest from a checkout at a fixed commit.
"""
