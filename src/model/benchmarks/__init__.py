"""Benchmarks of lm-evaluation-harness: suites, runner, run folder."""
