"""One optimizer step, and the training made of them."""
