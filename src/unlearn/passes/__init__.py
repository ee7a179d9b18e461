"""Forward passes of a loss: rows without padding, sides together, the language-model head where it counts."""
