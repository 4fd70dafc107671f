"""`paths`: where results that are reused between runs lie."""

from pydantic import Field

from pipelines.config.section import Section


class PathsConfig(Section):
    """Directories of the stage store."""

    stages: str = Field(default=".grpo/stages", min_length=1)
    """Directory of the stage store, where finished stages are found again."""
