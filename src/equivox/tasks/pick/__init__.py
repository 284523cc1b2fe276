"""Finding particles in electron micrographs."""
