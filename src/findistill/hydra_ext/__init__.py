"""Extensions of Hydra: sweepers that resume, launchers, shell completion, and the wording of its errors."""
