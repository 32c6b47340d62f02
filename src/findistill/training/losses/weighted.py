"""The loss: a weighted sum of terms."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from findistill.config.instantiate import build
from findistill.errors import UserError
from findistill.training.losses.base import Arrays, DistillationTerm, Pair


class WeightedTerms(nn.Module):
    """Terms by name; their parameters (projections) are trained and checkpointed with the module that holds this one."""

    def __init__(self, terms: Mapping[str, DistillationTerm]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict(terms)
        self.weights = {name: term.weight for name, term in terms.items()}
        self.needs_same_tokens = any(term.needs_same_tokens for term in terms.values())
        # the arrays to read of the student and to store of the teacher, without duplicates
        self.student_arrays = list(dict.fromkeys(name for term in terms.values() for name in term.student_arrays))
        self.teacher_arrays = list(dict.fromkeys(name for term in terms.values() for name in term.teacher_arrays))

    @classmethod
    def build(cls, nodes: Mapping[str, Mapping[str, Any]], pair: Pair, stages: Iterable[str]) -> "WeightedTerms":
        """The terms of these stages, set up for two models. `nodes`: `term_nodes(distill.terms)`.

        Raises:
            UserError: a term that is refused or cannot compare the two models; a name that torch reserves.
        """
        terms = {}
        for name, node in nodes.items():
            key = f"distill.terms.{name}"
            if hasattr(nn.ModuleDict, name):
                raise UserError(f"{key}: a term cannot be called {name}; choose another name")
            term: DistillationTerm = build(OmegaConf.create(dict(node)), key)
            if term.stage in stages:
                term.key = key
                term.setup(pair)
                terms[name] = term
        return cls(terms)

    def forward(self, student: Arrays, teacher: Arrays, mask: torch.Tensor, hard: torch.Tensor) -> dict[str, torch.Tensor]:
        """The unweighted terms by name, computed in float32; arguments as of `DistillationTerm.forward`, in any precision."""
        student, teacher = ({name: value.float() for name, value in arrays.items()} for arrays in (student, teacher))
        return {name: term(student, teacher, mask.bool(), hard).float() for name, term in self.terms.items()}

    def weighted(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Each term times its weight."""
        return {name: weight * values[name] for name, weight in self.weights.items()}

    def total(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss."""
        return torch.stack(list(self.weighted(values).values())).sum()
