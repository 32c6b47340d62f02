"""`stage=serve`: a model behind HTTP, until it is stopped."""

from findistill.methods.stage import Stage


class Serve(Stage):
    """`stage=serve`: it has no result, so it leaves no run folder."""

    implementation = preview = "findistill.methods.serve.stage:run"

    def previews(self) -> bool:
        return True
