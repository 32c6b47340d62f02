"""Summary of the answers for all rows, from the counts of the shards: as metrics, and in words."""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from findistill.models.training_profile import TrainingProfile, distance


def count_rows(answers: pa.Table, low: float) -> Counter[str]:
    """Counts of a window's answers; their first columns are label and confidence, or the entities.

    Args:
        answers: one per row, null if it has no text.
        low: confidence below which a row has low confidence.
    """
    first = answers.column(0)
    counts = Counter({"rows": len(answers), "empty": first.null_count})
    if pa.types.is_list(first.type):
        spans = pc.list_flatten(first)
        counts["entities"] = len(spans)
        counts["rows_with_entities"] = int((pc.list_value_length(first).fill_null(0).to_numpy() > 0).sum())
        names = pc.struct_field(spans, "label") if len(spans) else pa.array([], pa.string())
    else:
        counts["low_confidence"] = int((answers.column(1).fill_null(1.0).to_numpy() < np.float32(low)).sum())
        names = first.drop_null()
    counts.update({f"label/{each['values']}": each["counts"] for each in names.value_counts().to_pylist()})
    return counts


def metrics(
    counts: Mapping[str, float], labels: Iterable[str], profile: TrainingProfile | None, *, entities: bool
) -> dict[str, float]:
    """`predict/...` over all rows; `labels`: the model's, including those never predicted; `entities`: it marks entities."""
    rows, empty = counts["rows"], counts["empty"]
    answered = max(1, rows - empty)
    values: dict[str, float] = {"rows": rows, "empty": empty, "repeated": rows - empty - counts["predicted"]}
    if entities:
        values |= {"entities_per_text": counts["entities"] / answered, "with_entities": counts["rows_with_entities"] / answered}
        values |= {f"entities/{name[6:]}": value for name, value in counts.items() if name.startswith("label/")}
    else:
        shares = {name: counts.get(f"label/{name}", 0) / answered for name in labels}
        values |= {f"share/{name}": share for name, share in shares.items()}
        values["low_confidence"] = counts["low_confidence"] / answered
        if profile:
            values["unseen_pieces"] = counts["unseen"] / max(1, counts["pieces"])
            values["unseen_pieces_expected"] = profile.unseen
            if profile.labels:
                values["label_drift"] = distance(shares, profile.labels)
    return {f"predict/{name}": float(value) for name, value in values.items()}


def lines(values: Mapping[str, float], profile: TrainingProfile | None) -> Iterable[str]:
    """The metrics in words."""
    of = {name.removeprefix("predict/"): value for name, value in values.items()}
    rate = of.get("rows_per_s")
    speed = "" if rate is None else f", {rate:,.0f} rows/s" if rate >= 10 else f", {rate:.2g} rows/s"
    cost = f", {values['cost/usd']:,.4f} USD" if "cost/usd" in values else ""
    yield (
        f"{of['rows']:,.0f} rows, {of['empty']:,.0f} without a text, {of['repeated']:,.0f} duplicates of another row's text"
        f"{speed}{cost}"
    )
    if "with_entities" in of:
        kinds = ", ".join(f"{of[name]:,.0f} of {name[9:]}" for name in of if name.startswith("entities/"))
        yield f"entities: {kinds or 'none'}; {of['with_entities']:.1%} of the texts have one"
        return
    trained = profile.labels if profile else {}
    shares = ", ".join(
        f"{name[6:]} {of[name]:.1%}" + (f" (training {trained.get(name[6:], 0):.1%})" if trained else "")
        for name in of
        if name.startswith("share/")
    )
    yield f"labels: {shares}; low confidence: {of['low_confidence']:.1%}"
    if "unseen_pieces" in of:
        yield (
            f"word pieces unseen in training: {of['unseen_pieces']:.2%}; texts like the training texts would have about "
            f"{of['unseen_pieces_expected']:.2%}"
        )
