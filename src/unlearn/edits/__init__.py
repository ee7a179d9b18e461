"""Edits: unlearning by way of a model that was reinforced on the forget rows. Never paired with a retain
objective."""
