"""SYNAPSE: ten Sentinel-2 bands at 10 m to R G B NIR at 2 m, with what the sensor could not see told apart."""
