"""Layers that keep equivariance."""
