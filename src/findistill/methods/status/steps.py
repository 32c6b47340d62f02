"""`stage=status`: reads a study's folder, and makes nothing."""

from findistill.methods.stage import Stage


class Status(Stage):
    """`stage=status`: what is done, runs, failed or is left."""

    implementation = "findistill.methods.status.stage:show"
    of_study = True
