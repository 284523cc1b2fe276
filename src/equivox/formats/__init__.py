"""Readers and writers of files; they know no networks."""
