"""`stage=report`: works on a whole study, without its own run folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from findistill.core import run_folder
from findistill.core.step import load
from findistill.core.tracking import track_report
from findistill.methods.stage import Stage

if TYPE_CHECKING:
    from findistill.schema import Config


class Report(Stage):
    """`stage=report`: tables, figures and the page of a study."""

    implementation = "findistill.methods.report.stage:make"
    of_study = True


def make_report(config: "Config") -> None:
    """Write the report of the study that `config` names, and upload it to the study's W&B run.

    The implementation is imported here, since it needs pandas and matplotlib, which a plan does not.

    Raises:
        UserError: there is no such study, or it has no completed job.
    """
    load(Report.implementation)(Path(config.runs_dir), config.study, config.report)
    track_report(config, run_folder.study_folder(config))
