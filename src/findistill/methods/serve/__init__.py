"""Stage and steps of this method."""
