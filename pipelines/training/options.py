"""What the command line says about one call of train, and no identity depends on. Light: a cached run needs no MLX."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """How this call of a run begins and ends."""

    resume: str = "auto"
    """A step or checkpoint directory, or `auto`: the newest intact checkpoint, if there is one."""
    max_seconds: float | None = None
    quiet: bool = False
