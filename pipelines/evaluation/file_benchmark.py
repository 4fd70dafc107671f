"""Benchmarks whose items are rows of a file or of a data set on the hub: zero-shot or few-shot, chat or plain text."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import Field, model_validator

from pipelines.errors import DataError
from pipelines.evaluation.base import BaseEvaluator, EvaluatorConfig, Sources
from pipelines.evaluation.completions import Prompt
from pipelines.evaluation.hub import hub_file
from pipelines.evaluation.questions import rendered
from pipelines.files import at_home
from pipelines.rows.lines import read_lines
from pipelines.rows.loaders.hf import table_records
from pipelines.rows.loaders.plain import plain
from pipelines.rows.records import BadRowError, Row, parse

if TYPE_CHECKING:
    from typing_extensions import Self

Fields = Mapping[str, Any]
ReadT = TypeVar("ReadT")
ROLES = ("user", "assistant")
ROW_KEYS = ("data.prompt_key", "data.completion_key")
"""What decides the rows of a file that is laid out as a data set is."""
TABLES = (".parquet", ".arrow", ".csv")
"""Endings of files that are tables; any other is read as JSONL."""


class SourceConfig(EvaluatorConfig):
    """Where rows come from."""

    path: str | None = None
    """File of the items: JSONL, .gz too, or a table as .parquet, .arrow or .csv (null = the data set on the hub)."""

    hub: str | None = None
    """Name of a data set on the Hugging Face hub, fetched once."""

    hub_subset: str | None = None
    """Subset of that data set."""

    split: str = "test"
    """Split of that data set."""


class FileConfig(SourceConfig):
    """Keys of every benchmark whose rows are questions."""

    own_examples: ClassVar[int] = 0
    """How many solved examples the benchmark brings along."""

    few_shot: int = Field(default=0, ge=0)
    """Solved examples shown before each item."""

    few_shot_path: str | None = None
    """File that they are drawn from, with the run's seed; as `path`."""

    system_prompt: str | None = None
    """System message of each item (null = data.system_prompt)."""

    chat: bool = True
    """Ask through the model's chat template; without it prompts are plain text, as for a base model."""

    @model_validator(mode="after")
    def _has_examples(self) -> Self:
        if self.few_shot > self.own_examples and self.few_shot_path is None:
            raise ValueError(f"few_shot is {self.few_shot}; give few_shot_path, a file of solved rows")
        if self.few_shot_path is not None and not self.few_shot:
            raise ValueError("few_shot_path: few_shot is 0, so no example is shown")
        return self


@dataclass(frozen=True)
class Asked:
    """One row as a question and its model solution, with what its verdict needs."""

    question: str
    solution: str
    test_cases: tuple[Any, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict[str, Any])


class FileBenchmark(BaseEvaluator):
    """Rows become prompts: as chat messages with the examples as earlier turns, or as one text."""

    Config: ClassVar[type[FileConfig]] = FileConfig
    delimiter: ClassVar[str] = " "
    """Between a question and its solution in plain text."""
    settings: FileConfig

    @abstractmethod
    def asked(self, record: Fields) -> Asked:
        """A row's question and solution. BadRowError for a row that is none of this benchmark's."""

    @property
    def chat(self) -> bool:
        """Whether items are asked through the chat template."""
        return self.settings.chat

    def files(self) -> dict[str, Path]:
        examples = self.settings.few_shot_path
        return {"items": self.source()} | ({"examples": there(examples)} if examples else {})

    def source(self) -> Path:
        """The file of the items; DataError if there is none."""
        return source_of(self.settings)

    def items(self, sources: Sources) -> Sequence[Prompt]:
        examples = self.examples(sources.config.trainer.evaluation_seed)
        rows = [self._row(asked, where, examples) for where, asked in rows_of(self.source(), self.asked)]
        return rendered(sources.tokenizer, rows, sources.config, chat=self.chat)

    def examples(self, seed: int) -> list[Asked]:
        """The solved examples, one more than are shown: an item that is among them is not shown to itself."""
        count, path = self.settings.few_shot, self.settings.few_shot_path
        if not count or path is None:
            return []
        rows = rows_of(there(path), self.asked)
        if len(rows) < count:
            raise DataError(f"{path}: {len(rows)} rows, but few_shot is {count}", hint="lower it, or give more rows")
        picks = random.Random(f"{seed}/few_shot").sample(rows, min(count + 1, len(rows)))
        return [asked for _, asked in picks]

    def _row(self, asked: Asked, where: str, examples: Sequence[Asked]) -> Row:
        if not asked.question.strip():
            raise DataError(f"{where}: it asks nothing", hint=OTHER_FORMAT)
        shown = [each for each in examples if each.question != asked.question][: self.settings.few_shot]
        prompt: Any
        if self.chat:
            turns = [(each.question, each.solution) for each in shown]
            prompt = [_message(role, text) for turn in turns for role, text in zip(ROLES, turn, strict=True)]
            prompt.append(_message("user", asked.question))
        else:
            texts = [f"{each.question}{self.delimiter}{each.solution}" for each in shown]
            prompt = "\n\n".join([*texts, asked.question])
        return Row(prompt, asked.solution, self.settings.system_prompt, asked.test_cases, asked.meta, where)


def source_of(settings: SourceConfig) -> Path:
    """The file that holds the rows; DataError if there is none."""
    if settings.path is not None:
        return there(settings.path)
    if settings.hub is not None:
        return hub_file(settings.hub, settings.hub_subset, settings.split)
    raise DataError("no items are named", hint="give `path`, a file, or `hub` in the benchmark's config")


def rows_of(path: Path, read: Callable[[Fields], ReadT]) -> list[tuple[str, ReadT]]:
    """Where each row of a file stands, and what `read` makes of it; its BadRowError comes back as a DataError."""
    if path.suffix.lower() in TABLES:
        found = [(where, _made(where, read, partial(plain, record))) for where, record in table_records(path)]
    else:
        lines = ((f"{path}:{line.number}", line.content) for line in read_lines(path))
        found = [(where, _made(where, read, partial(_parsed, content))) for where, content in lines]
    if not found:
        raise DataError(f"{path}: no rows", hint="each row is an item of the benchmark")
    return found


def _made(where: str, read: Callable[[Fields], ReadT], record: Callable[[], Fields]) -> ReadT:
    try:
        return read(record())
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8", hint="save the file as UTF-8") from error
    except BadRowError as error:
        raise DataError(f"{where}: {error.message}", hint=error.hint) from error


def _parsed(line: bytes) -> Fields:
    return parse(line.decode())


def there(path: str) -> Path:
    """The path of a file that exists; DataError for one that does not."""
    file = at_home(path)
    if not file.is_file():
        raise DataError(f"there is no file {file}", hint=f"relative paths start at {Path.cwd()}")
    return file


def text_of(record: Fields, *names: str) -> str:
    """The text under the first of these names that the row has; BadRowError without one."""
    for name in names:
        if isinstance(record.get(name), str):
            return record[name]
    wanted = " or ".join(map(repr, names))
    raise BadRowError(f"no text in {wanted}; the row has {', '.join(map(repr, list(record)[:8]))}", hint=OTHER_FORMAT)


OTHER_FORMAT = "docs/concepts/evaluation.md shows the fields that each benchmark reads"


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}
