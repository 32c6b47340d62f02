"""Measuring and showing: metrics, curves, intervals and paired tests, figures, tables, the report page.

Pure functions of finished runs: nothing here trains, predicts or reads a run folder. Data flows
runs -> `methods` (jobs equal but for the seed) -> `comparisons`, `tables`, `plots` -> `report`.
"""
