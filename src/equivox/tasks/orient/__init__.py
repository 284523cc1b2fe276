"""Orientations of particles from single projections: train, predict, evaluate."""
