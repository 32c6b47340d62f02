"""Steps, jobs, studies and the artifact store; files, hashing, hardware, tracking."""
