"""Linear transform files of other programs."""
