"""The command line: parses, calls one task, prints, exits."""
