"""What is asked of a model and what its answer is held against: frozen specs that turn a pair into a task."""
