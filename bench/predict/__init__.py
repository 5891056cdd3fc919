"""From a request to run folders: the plan, its execution and its resumption."""
