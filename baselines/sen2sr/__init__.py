"""SEN2SR and SEN2SRLite: networks whose answer keeps the low frequencies of Sentinel-2."""
