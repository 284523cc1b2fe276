"""Pure mathematics: rotations, irreps, harmonics, Wigner matrices, voxel space."""
