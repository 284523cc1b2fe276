"""Steerable kernel bases: pure functions from geometry to float64 tensors, cached."""
