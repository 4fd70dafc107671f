"""References of the data set as rows to be taught: all of algorithm `sft`, and the supervised term beside a loss."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipelines.algorithms.regions import Tags, thinking_length
from pipelines.config import DataConfig
from pipelines.errors import DataError
from pipelines.tokens.dataset import TokenDataset
from pipelines.training.collect import Collected, Draw
from pipelines.training.rollout_metrics import length_metrics
from pipelines.training.sequences import Sequences


class References:
    """The references of the data set as rows to be taught."""

    def __init__(self, dataset: TokenDataset, data: DataConfig, tokenizer: Any, tags: Tags) -> None:
        self.dataset = dataset
        self.data = data
        self.tokenizer = tokenizer
        self.tags = tags

    def sequences(self, step: int, indices: Sequence[int]) -> Sequences:
        """The rows at `indices`; DataError for one without a completion."""
        completions = [self.dataset.completion_tokens(i) for i in indices]
        for index, completion in zip(indices, completions, strict=True):
            if len(completion) == 0:
                raise DataError(
                    f"{self._place(index)}: no reference completion to learn from (update {step})",
                    hint="give every row a completion, or train with rewards alone (trainer.use_sft_on_answer: false)",
                )
        thinking = [
            thinking_length(completion, self.tags, self.dataset.preopened(i), self.tokenizer.decode)
            for i, completion in zip(indices, completions, strict=True)
        ]
        return Sequences(
            prompts=[self.dataset.prompt_tokens(i) for i in indices],
            completions=completions,
            advantages=np.ones(len(indices), np.float32),
            silent=np.zeros(len(indices), bool),
            thinking=np.array(thinking),
        )

    def answers(self, step: int, indices: Sequence[int]) -> Sequences:
        """The same with only the answers active: what the supervised term learns from in most modes."""
        found = self.sequences(step, indices)
        return replace(found, inactive=[found.region(row) for row in range(len(found))])

    def _place(self, index: int) -> str:
        """`file:line` of a row; the data set itself knows only which of the files it was."""
        source = self.dataset.row(index).source
        name, _, line = source.rpartition(":")
        path = {"train": self.data.train_path, "val": self.data.val_path}.get(name)
        return source if path is None else f"{path}:{line}"


class ReferenceCollector:
    """Teacher forcing: the reference completions are the completions."""

    def __init__(self, references: References) -> None:
        self.references = references

    def collect(self, step: int, prompts: int, draw: Draw) -> Collected:
        """The references of the next `prompts` rows."""
        sequences = self.references.sequences(step, draw(prompts))
        lengths = np.array([len(completion) for completion in sequences.completions])
        metrics = length_metrics(lengths) | {"num_tokens": float(lengths.sum())}
        return Collected(sequences, metrics, list)

    def close(self) -> None:
        """Nothing was started."""
