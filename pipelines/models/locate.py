"""From `model_path` to a directory, without importing anything heavy."""

from pathlib import Path

from pipelines.bundled import BUILTIN, bundled
from pipelines.errors import ModelError

BUILTIN_MODELS = {"builtin:tiny": "tiny-model"}


def model_directory(model_path: str) -> Path:
    """The local directory of a model: built-in name, directory, or hub id (downloaded once, then cached)."""
    if model_path in BUILTIN_MODELS:
        return bundled(BUILTIN_MODELS[model_path])
    path = Path(model_path).expanduser()
    if path.is_dir():
        return path
    if model_path.startswith((BUILTIN, ".", "/", "~")) or model_path.count("/") != 1:
        raise ModelError(
            f"model.model_path: no model directory at {model_path}",
            hint=f"give a directory with config.json, a hub id such as owner/name, or {', '.join(BUILTIN_MODELS)}",
        )
    return _from_hub(model_path)


def _from_hub(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.py"]
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # not in the local cache yet: ask the hub
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"model.model_path: {repository} is neither a directory nor reachable on the hub ({type(error).__name__})",
            hint="check the name, your connection and HF_TOKEN, or download it and give the directory",
        ) from error
