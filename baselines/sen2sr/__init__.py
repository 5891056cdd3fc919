"""SEN2SRLite: a small convolutional network whose answer keeps the low frequencies of Sentinel-2."""
