"""The status of a study's jobs."""
