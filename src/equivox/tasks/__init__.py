"""What a command does, from files to files; every task can be called from Python."""
