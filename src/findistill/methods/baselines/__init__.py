"""What a practitioner would try first, on the same rows as the jobs of a study."""
