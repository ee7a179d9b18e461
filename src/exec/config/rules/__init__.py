"""Combinations of settings that cannot work, and those that are probably not meant. The rules look at the
disk, never at a model."""
