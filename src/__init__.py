"""Machine unlearning for language models. `unlearnkit.api` is the way in from Python."""
