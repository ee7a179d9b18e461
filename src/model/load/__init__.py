"""Models and tokenizers: found, checked, loaded."""
