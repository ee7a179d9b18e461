"""The settings of every script: read, checked, explained."""
