"""Combinations of settings that cannot work, and those that are probably not meant. Looks at the disk, never at
a model."""
