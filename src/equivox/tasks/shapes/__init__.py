"""Classification and retrieval of shapes, proteins and residues."""
