"""What is fuzzed: functions from bytes to nothing that may only raise the errors we document, and where they start.

Every target has seeds, inputs from which others are made, and words that mutations put in.
"""

import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.config import DataConfig
from pipelines.config.loader import resolve
from pipelines.config.templates import TEMPLATES, render_template
from pipelines.errors import StageError
from pipelines.rewards.code_extraction import extract_code
from pipelines.rewards.context import between, split_regions
from pipelines.rows.records import from_json, to_json
from pipelines.rows.sources import read_rows
from pipelines.stages import manifest
from pipelines.stages.identity import IDENTITY_FILE, SEAL, Identity, read_identity

FAULTS = str(Path(__file__).resolve().parents[1] / "faults")
sys.path.insert(0, FAULTS)
try:
    odd_rows, odd_files, odd_configurations = map(
        importlib.import_module, ("odd_rows", "odd_files", "odd_configurations")
    )
finally:
    sys.path.remove(FAULTS)

LONGEST_SEED = 20_000
TAGS = (("<think>", "</think>"), ("<a>", "<a>"), ("", ""), ("\u27e8", "\u27e9"), ("<answer>", "</answer>"))


@dataclass(frozen=True)
class Target:
    """One function, inputs to start from, and words to put in."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]


def code_extraction(data: bytes) -> None:
    """A completion becomes a program, or none; taken for a completion again, the program is found whole."""
    code = extract_code(data[1:].decode(errors="replace"), ("f", "solve")[: data[0] % 3] if data else ())
    assert code == "" or code.endswith("\n")
    assert len(code) <= len(data) * 3 + 2


def regions(data: bytes) -> None:
    """Thinking and answer are parts of the text that share nothing."""
    first = data[0] if data else 0
    text, tags = data[1:].decode(errors="replace"), TAGS[first % len(TAGS)]
    if not tags[1]:
        return
    thinking, answer = split_regions(text, tags, opened=first > 127)
    assert len(thinking) + len(answer) <= len(text)
    assert text.find(thinking) + len(thinking) <= text.rfind(answer) + len(answer)
    inner = between(answer, TAGS[-1])
    assert inner in answer
    assert inner == inner.strip()


def jsonl(data: bytes) -> None:
    """A file of rows; each row that is accepted can be written, and read again the same."""
    place = _room() / "rows.jsonl"
    place.write_bytes(data)
    for row in read_rows(place, DataConfig()):
        line = to_json(row)
        assert "\n" not in line
        assert from_json(json.loads(line.encode())) == row


def yaml(data: bytes) -> None:
    """A configuration file, from bytes to a checked configuration that knows the origin of each value."""
    place = _room() / "c.yaml"
    place.write_bytes(data)
    loaded = resolve([place], [], {})
    assert all(origin == "default" or origin.startswith(f"{place}:") for origin in loaded.origins.values())


def stage_manifest(data: bytes) -> None:
    """The two files of a stage, which anybody may have edited."""
    place = _room()
    (place / manifest.MANIFEST_FILE).write_bytes(data)
    (place / IDENTITY_FILE).write_bytes(data)
    try:
        found = manifest.read(place)
    except StageError:
        found = None
    if found is not None:
        assert manifest.damages(place, found, verify=True) is not None
        assert len(found.outputs_digest) == 64
    identity = read_identity(place)
    assert identity is None or identity.key == identity.digest[:12]


_rooms: dict[int, Path] = {}


def _room() -> Path:
    """An empty folder of this process, the same each time."""
    if os.getpid() not in _rooms:
        _rooms[os.getpid()] = Path(tempfile.mkdtemp(prefix="grpo-fuzz-"))
    return _rooms[os.getpid()]


def close() -> None:
    """Remove what the targets wrote."""
    for room in _rooms.values():
        shutil.rmtree(room, ignore_errors=True)
    _rooms.clear()


def _manifests() -> tuple[bytes, ...]:
    room = Path(tempfile.mkdtemp(prefix="grpo-fuzz-"))
    (room / "x.txt").write_text("x")
    identity = Identity("preprocess", 1, {"data": {"limit": None, "seed": 1, "fraction": 0.5}}, {"train": "00"})
    manifest.complete(room, identity, summary={"rows": 3, "mean": 0.5}, seconds=1.5)
    sealed = (room / manifest.MANIFEST_FILE).read_bytes()
    shutil.rmtree(room)
    record = {name: value for name, value in json.loads(sealed).items() if name != SEAL}  # a seal stops every change
    return sealed, *(json.dumps(each).encode() for each in (record, record["identity"], {}, [], None)), b""


def _small(seeds) -> tuple[bytes, ...]:
    encoded = (seed.encode() if isinstance(seed, str) else seed for seed in seeds)
    return tuple(seed for seed in encoded if len(seed) <= LONGEST_SEED)


_JSON = (b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\u", b"\\ud800", b"null", b"true", b"1e999", b"NaN", b"-0", b"\0")
_LINES = (b"\n", b"\r", b"\r\n", "\u2028".encode(), b"\x85", b"\xef\xbb\xbf", b"\xff", b"\x1f\x8b\x08", b"\xed\xa0\x80")
_COMPLETIONS = (
    b"\0```python\ndef f(x):\n    return x\n```\nso `f(1)` is 1",
    b"\1~~~py\nimport os\n~~~\n```js\nx\n```\n    ```\n    def solve(): pass\n    ```",
    b"\2<think>maybe\n```\nclass A:\n  x = 1\n</think>\nx = 1\nprint(x)\n>>> f(2)\n4",
    "\0```\n\u65e5\u672c\n````\n```\r\ndef f(\r\n".encode(),
)
_TEXTS = (
    b"\0<think>a</think>b",
    b"\x80a</think>b<think>c</think>",
    b"\4<answer>1</answer><answer>2",
    b"\1<a>x<a>",
    "\3\u27e8x\u27e9".encode(),
)
_YAML = (b"- ", b": ", b"? ", b"&a ", b"*a", b"<<: ", b"!!int ", b"|\n", b">-\n", b"---\n", b"...\n", b"%YAML 1.1\n")
_NUMBERS = (
    b"0x",
    b"010",
    b"1e400",
    b"1e-400",
    b".nan",
    b"-.inf",
    b"1_0",
    b"1:30",
    b"9" * 40,
    b"yes",
    b"~",
    b"#",
    b"\t",
)
_ROWS = (*odd_rows.ACCEPTED.values(), *(line for line, _ in odd_rows.REFUSED.values()))
_FILES = (content for content, _ in (*odd_files.ACCEPTED.values(), *odd_files.REFUSED.values()))
_CONFIGURATIONS = (
    content for content, _ in (*odd_configurations.ACCEPTED.values(), *odd_configurations.REFUSED.values())
)

TARGETS = {
    "code": Target(
        code_extraction, _COMPLETIONS, (b"```", b"~~~", b"python", b"def f(", b"class ", b"\n", b"    ", b"</think>")
    ),
    "regions": Target(regions, _TEXTS, (b"<think>", b"</think>", b"<answer>", b"</answer>", b"<a>", b" ", b"\n")),
    "jsonl": Target(jsonl, _small((*_ROWS, *(c for c in _FILES if isinstance(c, bytes)))), _JSON + _LINES),
    "yaml": Target(
        yaml, _small((*_CONFIGURATIONS, *map(render_template, TEMPLATES))), _YAML + _NUMBERS + _JSON + _LINES
    ),
    "manifest": Target(stage_manifest, _manifests(), (*_JSON, b"Infinity", b"[" * 300, b'{"a":' * 300, b"9" * 5000)),
}
