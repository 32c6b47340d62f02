"""`stage=status`: reads a study's folder, and changes nothing."""

from findistill.methods.stage import Stage


class Status(Stage):
    """`stage=status`: what is done, running, failed or left."""

    implementation = "findistill.methods.status.stage:show"
    of_study = True
