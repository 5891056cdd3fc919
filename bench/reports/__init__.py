"""What people read of runs: tables, comparisons, gates, figures, citations. Reads run folders, never a model."""
