"""Simulators; they know nothing of tasks and networks."""
