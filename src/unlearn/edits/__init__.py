"""Edits: unlearning by way of a model that was reinforced on the forget rows. Never paired with a retain
objective."""

from . import task_vector, whp  # noqa: F401
