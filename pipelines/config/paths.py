"""`paths`: where results that are reused between runs lie."""

from pipelines.config.section import Directory, Section


class PathsConfig(Section):
    """Directories of the stage store."""

    stages: Directory = ".grpo/stages"
    """Directory of the stage store, where finished stages are found again."""
