"""Findistill's side of Hydra: the resuming sweeper and the wording of its errors."""
