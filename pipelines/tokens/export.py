"""Copy one split's files to a prefix of the user's, each complete or not there."""

import shutil
from pathlib import Path

from pipelines.errors import DataError
from pipelines.tokens.dataset import FILES


def export_split(directory: Path, split: str, prefix: Path) -> list[Path]:
    """`<prefix>_prompts.npy` and the rest; returns what was written. DataError if a file cannot be written."""
    written: list[Path] = []
    for name in FILES:
        target = prefix.with_name(f"{prefix.name}_{name}")
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(directory / f"{split}_{name}", temporary)
            temporary.replace(target)
        except OSError as error:
            raise DataError(f"{target}: {error.strerror}", hint="give a prefix in a directory you may write") from error
        written.append(target)
    return written
