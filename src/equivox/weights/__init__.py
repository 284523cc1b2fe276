"""Model folders, and the import of published checkpoints."""
