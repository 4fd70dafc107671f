"""From `model_path` to a directory, without importing anything heavy."""

import json
from pathlib import Path

from pipelines.bundled import BUILTIN, bundled
from pipelines.errors import ModelError
from pipelines.files import read_json
from pipelines.hub import before_fetching
from pipelines.models.files import CONFIG_FILE

BUILTIN_MODELS = {"builtin:tiny": "tiny-model"}


def model_directory(model_path: str, *, key: str = "model.model_path") -> Path:
    """The local directory of a model: built-in name, directory, or hub id (downloaded once, then cached).

    ModelError if there is none, or a directory is a run or holds adapters alone; NotHereError for a hub id that is not
    cached, while only looking.
    """
    if model_path in BUILTIN_MODELS:
        return bundled(BUILTIN_MODELS[model_path])
    path = Path(model_path).expanduser()
    if path.is_dir():
        _refuse_parts(path)
        return path
    if not is_hub_name(model_path):
        raise ModelError(
            f"{key}: no model directory at {model_path}",
            hint=f"give a directory with config.json, a hub id such as owner/name, or {', '.join(BUILTIN_MODELS)}",
        )
    return _from_hub(model_path, key)


def _refuse_parts(directory: Path) -> None:
    """ModelError for what training leaves behind that is no whole model: a run, or a checkpoint of adapters."""
    described = directory / "adapter_config.json"
    if described.is_file() and not any(directory.glob("model*.safetensors")):
        base = (read_json(described, ModelError) or {}).get("model", "BASE")
        export = f"`grpo export -s model.model_path={base} --checkpoint {directory} --output DIR`"
        raise ModelError(
            f"{directory} holds adapters, not a whole model", hint=f"put them onto their base, and give DIR: {export}"
        )
    if (directory / "identity.json").is_file() and not (directory / CONFIG_FILE).is_file():
        newest = max(directory.glob("*/step_*"), default="a directory step_...", key=str)
        raise ModelError(f"{directory} is a run, not a model", hint=f"give one of its checkpoints: {newest}")


def is_hub_name(model_path: str) -> bool:
    """Whether this is written as hub ids are, `owner/name`; a directory of that name comes first all the same."""
    return model_path.count("/") == 1 and not model_path.startswith((BUILTIN, ".", "/", "~"))


def local_model(model_path: str) -> Path | None:
    """The directory of a model that is here, the hub's cache included; None for one that is not. No network."""
    if not is_hub_name(model_path) or Path(model_path).is_dir():
        try:
            return model_directory(model_path)
        except ModelError:
            return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model_path, CONFIG_FILE)
    return Path(cached).parent if isinstance(cached, str) else None


def num_layers(directory: Path) -> int | None:
    """The depth that a model's config.json tells; None if it tells none."""
    try:
        described = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = described.get("num_hidden_layers") if isinstance(described, dict) else None
    return found if isinstance(found, int) else None


def _from_hub(repository: str, key: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.py"]
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        before_fetching(repository)
    except HFValidationError as error:
        raise ModelError(f"{key}: {error}", hint="give a directory, or a hub id such as owner/name") from error
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{key}: {repository} is neither a directory nor reachable on the hub ({type(error).__name__})",
            hint="check the name, your connection and HF_TOKEN, or download it and give the directory",
        ) from error
