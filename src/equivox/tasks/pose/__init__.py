"""The 6-DoF pose of a fetal head (or of any trained object) in a 3D or 4D scan."""
