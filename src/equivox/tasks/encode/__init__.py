"""Brain encoders: vectors that turn with the head, and numbers that do not."""
