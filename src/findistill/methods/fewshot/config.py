"""Settings of few-shot evaluation."""

from dataclasses import dataclass

from findistill.config.fields import setting


@dataclass
class Fewshot:
    """`stage=fewshot`. Sampling is set by `annotate`: by default one sample at temperature 0."""

    # maximum rows of each test set, a stratified sample drawn with data.seed; None: all
    limit: int | None = setting(None, ge=2)
    # How the label is read. likelihood: from the log-probabilities of the label words; generation: from the
    # generated text, where an answer without a label counts as wrong; auto: likelihood in this process, generation on a server
    scoring: str = setting("auto", choices=("auto", "likelihood", "generation"))
    # likelihood: a label word's log-probability is the mean or the sum over its tokens
    normalise: str = setting("mean", choices=("mean", "sum"))
