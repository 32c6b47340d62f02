"""Settings of few-shot evaluation."""

from dataclasses import dataclass

from findistill.config.fields import setting


@dataclass
class Fewshot:
    """`stage=fewshot`. How it asks is set by `annotate`: one sample at temperature 0 unless told otherwise."""

    # at most so many rows of each test set: a stratified sample drawn by data.seed; None: all
    limit: int | None = setting(None, ge=2)
    # How the label is read. likelihood: from the log-probabilities of the label words; generation: from the text that the
    # llm writes, where an answer without a label counts as wrong; auto: likelihood in this process, generation at a server
    scoring: str = setting("auto", choices=("auto", "likelihood", "generation"))
    # likelihood: a label word's log-probability is the mean or the sum over its tokens
    normalise: str = setting("mean", choices=("mean", "sum"))
