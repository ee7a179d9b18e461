"""Texts that a model writes for a run: traces, paraphrases, alternate and perturbed answers."""
