"""What a run will need, computed before its weights are loaded."""
