"""How the jobs of a study stand."""
