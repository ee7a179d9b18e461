"""Benchmarks of lm-evaluation-harness: which there are, how they run, what they leave."""
