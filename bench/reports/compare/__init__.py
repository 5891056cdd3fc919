"""Is one model better than another? Every pair of rows, metric by metric, from run folders alone."""
