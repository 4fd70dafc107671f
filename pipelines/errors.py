"""Everything that can go wrong, sorted by who can mend it; each error carries a message and a hint."""


class GrpoError(Exception):
    """Base of every error the product raises on purpose; the command line prints `error:` and `hint:`."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(GrpoError):
    """A configuration that cannot be used as written."""

    exit_code = 2


class DataError(GrpoError):
    """A row, file or array that cannot be read as data."""

    exit_code = 2


class ModelError(GrpoError):
    """A model directory that cannot be loaded, adapted or saved."""

    exit_code = 2


class RewardError(GrpoError):
    """A reward that raised too often, or does not exist."""


class SandboxError(GrpoError):
    """Isolation that could not be set up; never a wrong answer."""


class CheckpointError(GrpoError):
    """A checkpoint that is damaged, missing, or belongs to another run."""


class NoCheckpointError(CheckpointError):
    """A checkpoint that was asked for by name, and is not there."""

    exit_code = 2


class StageError(GrpoError):
    """A stage directory that cannot be reused or overwritten."""


class TrainingError(GrpoError):
    """A run that cannot go on: non-finite gradients, dead learning, mismatching log-probabilities."""
