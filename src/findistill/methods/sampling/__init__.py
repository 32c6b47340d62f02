"""`stage=entities entities.step=sample`: which headlines people review."""
