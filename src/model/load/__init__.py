"""Checks, loading and conversion of models and tokenizers."""
