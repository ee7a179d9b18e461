"""Weight masks of a model: made, loaded, reported on."""
