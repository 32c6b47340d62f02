"""Language models as annotators: prompts, demonstrations, engines, votes."""
