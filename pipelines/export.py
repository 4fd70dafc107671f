"""Take a checkpoint elsewhere: a directory that mlx-lm and transformers load, with a card that says what it is.

The directory is written beside its place and renamed, so it is complete or not there.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from pipelines.cards.origin import Origin
from pipelines.config import ExperimentConfig
from pipelines.errors import CheckpointError, ConfigError, ModelError
from pipelines.evaluation.targets import BASE, MANIFEST_FILE, Target
from pipelines.files import TEMPORARY_SUFFIX, at_home, sync_directory, sync_file

DTYPES = ("float16", "bfloat16", "float32")
BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)

ADAPTER_FILES = ("adapters.safetensors", "adapter_config.json")
"""What `mlx_lm --adapter-path` reads."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What to write: a whole model, adapters fused; or the adapters alone."""

    adapter_only: bool = False
    dtype: str | None = None
    """Of floating weights (None = as stored)."""
    bits: int | None = None
    """Quantise to so many bits (None = do not)."""
    group_size: int = 64
    """Weights that share a scale when quantised."""
    gguf: bool = False
    """Also a GGUF file."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    directory: Path
    form: str
    files: list[str]
    size_bytes: int


def run(config: ExperimentConfig, output: Path, *, target: Target, request: Request | None = None) -> Exported:
    """Write the export of `target` to `output`, which must be free.

    ConfigError for a request that contradicts itself, CheckpointError for damage and for a run without a checkpoint,
    ModelError for what this model cannot become; nothing is there then.
    """
    from pipelines import backend

    asked, place = request or Request(), Path(os.path.realpath(at_home(output)))
    backend.prepare()
    _check_meant(config, target)
    _check_request(asked, target)
    _check_free(place)
    _check_intact(target)
    if asked.gguf:
        _check_gguf(config, target)
    origin = Origin(config, target)
    if origin.base_is_another:
        log.warning("%s is not the model that these adapters were trained on", config.model.model_path)
    form = _publish(place, lambda directory: _write(directory, origin, asked, place.name))
    files = sorted(path for path in place.iterdir() if path.is_file())
    return Exported(output, form, [path.name for path in files], sum(path.stat().st_size for path in files))


def _check_request(asked: Request, target: Target) -> None:
    """ConfigError for options that exclude each other, or values that mlx does not know."""
    model_only = {"--dtype": asked.dtype, "--quantize": asked.bits, "--gguf": asked.gguf}
    given = [option for option, value in model_only.items() if value]
    if asked.adapter_only and given:
        raise ConfigError(
            f"--adapter-only excludes {given[0]}: adapters are copied as they are", hint="give one of them"
        )
    if asked.adapter_only and not target.is_adapter:
        raise ConfigError(f"{target.name} has no adapters: it is a whole model", hint="leave out --adapter-only")
    if asked.gguf and asked.bits:
        raise ConfigError("--gguf excludes --quantize: mlx-lm writes GGUF in float16 only", hint="give one of them")
    for option, value, known in (
        ("--dtype", asked.dtype, (None, *DTYPES)),
        ("--quantize", asked.bits, (None, *BITS)),
        ("--group-size", asked.group_size, GROUP_SIZES),
    ):
        if value not in known:
            choices = ", ".join(str(choice) for choice in known if choice)
            raise ConfigError(f"{option}: {value} is not possible", hint=f"choose one of {choices}")


def _check_meant(config: ExperimentConfig, target: Target) -> None:
    """CheckpointError where a run was meant that has no checkpoint: its base would pass for what it came to."""
    if target.directory is None and target.words != BASE:
        raise CheckpointError(
            f"{config.trainer.output_dir} holds no checkpoint to export",
            hint=f"train first, give --checkpoint DIR, or --checkpoint {BASE} for the model that training starts from",
        )


def _check_free(place: Path) -> None:
    """ConfigError unless the output is an empty directory or nothing at all."""
    if place.is_dir() and any(place.iterdir()):
        raise ConfigError(f"--output: {place} is not empty", hint="give a new directory; nothing is overwritten")
    if place.exists() and not place.is_dir():
        raise ConfigError(f"--output: {place} is a file", hint="give a directory")


def _check_intact(target: Target) -> None:
    """CheckpointError for a checkpoint of ours whose bytes are not what was saved."""
    from pipelines.training import checkpoint_files

    if target.directory is None or not (target.directory / MANIFEST_FILE).is_file():
        return
    found = checkpoint_files.problems(target.directory, verify=True)
    if found:
        raise CheckpointError(f"{target.directory} is damaged: {'; '.join(found)}", hint="export another checkpoint")


def _check_gguf(config: ExperimentConfig, target: Target) -> None:
    from pipelines.models.fuse import refuse_gguf
    from pipelines.models.locate import model_directory

    base = target.directory is None or target.is_adapter
    refuse_gguf(model_directory(config.model.model_path if base else str(target.directory)))


def _publish(place: Path, write: Callable[[Path], str]) -> str:
    """Write into a directory beside the place, bring it to the disk, rename it; if anything fails, nothing stays."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        temporary.mkdir()
        result = write(temporary)
        for path in temporary.iterdir():
            sync_file(path)
        sync_directory(temporary)
        temporary.replace(place)  # an empty directory of that name makes way
        sync_directory(place.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # it is there only if something went wrong
    return result


def _write(directory: Path, origin: Origin, asked: Request, name: str) -> str:
    """All files; what they are, in words."""
    from pipelines.cards import page

    try:
        words, is_exact = (
            _write_adapters(directory, origin) if asked.adapter_only else _write_model(directory, origin, asked)
        )
    except RuntimeError as error:  # a disk that is full, as mlx says it
        raise ModelError(f"the export cannot be written: {error}", hint="is there space? Nothing was left") from error
    base = f"--model {quote(origin.base_name)} --adapter-path" if asked.adapter_only else "--model"
    command = f'mlx_lm.generate {base} {quote(name)} --prompt "..."'
    page.write(directory, origin, name, page.Form(f"{words[0].upper()}{words[1:]}.", command, is_exact))
    return words


def _write_adapters(directory: Path, origin: Origin) -> tuple[str, bool]:
    for name in ADAPTER_FILES:
        shutil.copyfile(Path(origin.target.directory or "") / name, directory / name)
    return f"adapters alone, to be put on {origin.base_name}", True


def _write_model(directory: Path, origin: Origin, asked: Request) -> tuple[str, bool]:
    """Words, and whether no weight was rounded on the way (but for the sum of a base and its adapters)."""
    import mlx.core as mx

    from pipelines.models import fuse
    from pipelines.models.quantise import is_quantised, quantise

    loaded = origin.target.load(origin.config)
    if asked.bits and is_quantised(loaded.config):
        raise ModelError(f"{origin.base_name} is quantised already", hint="leave out --quantize")
    fused = fuse.fuse_adapters(loaded.model)
    dtype = loaded.stored_dtype if asked.dtype is None else getattr(mx, asked.dtype)
    fuse.cast(loaded.model, dtype)
    described, type_name = loaded.config, str(dtype).removeprefix("mlx.core.")
    words = f"a whole model in {type_name}" + (", adapters fused" if fused else "")
    if asked.bits:
        described = quantise(loaded.model, described, asked.bits, asked.group_size)
        words += f", quantised to {asked.bits} bits in groups of {asked.group_size}"
    fuse.write_model(directory, loaded, described, type_name)
    if asked.gguf:
        words += f", and as GGUF: {fuse.write_gguf(directory, loaded.model, described).name}"
    return words, not asked.bits and dtype == loaded.stored_dtype
