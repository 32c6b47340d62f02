"""Sources of texts, their labels and splits, and the nearest neighbours of a text."""
