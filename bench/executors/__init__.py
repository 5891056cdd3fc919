"""Where units of work are done: processes of this machine, or a cluster's; only the caller writes results."""
