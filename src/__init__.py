"""Machine unlearning for language models. `unlearnkit.api` is the way in from Python."""

__version__ = "0.2.0"
