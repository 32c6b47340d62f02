"""`stage=report`: works on a whole study, not in a run folder of its own."""

from findistill.methods.stage import Stage


class Report(Stage):
    """`stage=report`: tables, figures and the page of a study."""

    implementation = "findistill.methods.report.stage:make"
    of_study = True
