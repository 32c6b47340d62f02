"""Splitting by date, to train on earlier texts and test on later ones."""

import re
from collections.abc import Sequence
from itertools import pairwise

import pandas as pd

from findistill.config.overrides import typed
from findistill.errors import UserError

EXAMPLE = ["2010/2016", "2017/2018", "2019/2020"]
SETTING = "data.split_by_date"
_DAY = r"\d{4}(?:-\d\d(?:-\d\d)?)?"  # a year, a month or a day
_PERIOD = re.compile(rf"({_DAY})?/({_DAY})?|({_DAY})")


def periods_of(dates: pd.Series, periods: Sequence[str], name: str, setting: str = SETTING) -> pd.Series:
    """The split of each row by its date, None if outside all periods or without a date.

    Args:
        dates: in ISO format, with or without a time; None if unknown. The day is taken as written, without converting time zones.
        periods: of training, validation and test, or of training and test. `2010/2016` is from the first day of 2010 to the last
            of 2016; months and days are written `2016-05` and `2016-05-31`; a side may be left open (`2019/`).
        name: of the data set, for errors.
        setting: name of the setting with the periods, for errors.

    Raises:
        UserError: a period is invalid or overlaps another; there are no dates, or one is not in ISO format.
    """
    text, remedy = f"{setting}=[{','.join(map(str, periods))}]", typed(setting, EXAMPLE)
    names = {2: ("train", "test"), 3: ("train", "validation", "test")}.get(len(periods))
    if names is None:
        raise UserError(f"{text}: give the periods of training, validation and test, or of training and test: {remedy}")
    bounds = [_bounds(period, setting) for period in periods]
    for (_, end), (begin, _) in pairwise(sorted(bounds)):
        if end >= begin:
            raise UserError(f"{text}: two periods overlap on {begin}; each must begin after the previous one ends: {remedy}")
    values = dates.dropna().astype(str)
    if values.empty:
        raise UserError(f"{text}: data={name} has no dates; name their column in data.date_column, or leave the setting out")
    wrong = values[~values.str.match(r"\d{4}-\d\d-\d\d")]
    if len(wrong):
        row, date = wrong.index[0] + 1, wrong.iloc[0][:40]
        raise UserError(f"{text}: data={name}, row {row}: {date!r} is not a date; write dates as 2019-12-31")
    days = values.str[:10]
    splits = pd.Series([None] * len(dates), dates.index, dtype=object)
    for split, (begin, end) in zip(names, bounds, strict=True):
        splits[days.index[(days >= begin) & (days <= end)]] = split
    return splits


def _bounds(period: str, setting: str) -> tuple[str, str]:
    """The first and the last day, as strings that sort by date."""
    match = _PERIOD.fullmatch(str(period).strip())
    if not match or str(period).strip() == "/":
        raise UserError(f"{setting}: {period!r} is not a period such as 2010/2016, 2019-06 or 2020/: {typed(setting, EXAMPLE)}")
    begin, end = match[1] or match[3] or "", match[2] or match[3] or "9999"
    last = end + "-12-31"[len(end) - 4 :] if len(end) < 10 else end
    if begin > last:
        raise UserError(f"{setting}: {period!r} ends before it begins")
    return begin, last
