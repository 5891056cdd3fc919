"""RareFlow: physics-aware flow matching for cross-sensor super-resolution of rare landforms."""
