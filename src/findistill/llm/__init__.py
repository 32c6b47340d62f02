"""Language models as annotators: prompts, demonstrations, engines, votes."""

from findistill.llm.annotate import annotate, annotation_key

__all__ = ["annotate", "annotation_key"]
