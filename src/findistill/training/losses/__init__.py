"""The terms of the distillation loss: one file each, built from `distill.terms`."""
