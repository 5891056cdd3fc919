"""MISR-S2: super-resolution of irregular Sentinel-2 time series (SRDiff on HighRes-net with temporal attention).

Its code is under the GPL-3.0 and runs in a guest, from a checkout that the user fetches; nothing of it is here. Its
authors publish no weights: the user trains them with upstream's code.
"""
