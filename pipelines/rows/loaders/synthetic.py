"""Generated rows: made here one after the other, rendered and tokenised wherever there is a free process."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pipelines.rows.loaders.base import CHUNK_ROWS, BaseLoader, Chunk, Item, batched


class SyntheticLoader(BaseLoader):
    """`data.synthetic` says which task, how many rows, how hard, and from which seed."""

    def sources(self) -> dict[str, str]:
        wanted = self.data.synthetic
        return {"train": "synthetic train"} | ({"val": "synthetic val"} if wanted.val_rows else {})

    def files(self, path: str) -> dict[str, Path] | None:
        """None: the rows are a function of the configuration."""

    def cut(self, path: str) -> Iterator[Chunk]:
        from pipelines.rows.synthetic.registry import generate

        wanted = self.data.synthetic
        split = path.removeprefix("synthetic ")
        total = {"train": wanted.train_rows, "val": wanted.val_rows}[split]
        total = min(total, self.data.limit or total)
        done = 0
        for rows in batched(islice(generate(wanted)[split], total), CHUNK_ROWS):
            done += len(rows)
            yield Chunk(path, len(rows), rows, done / total)

    def rows(self, chunk: Chunk) -> Iterator[Item]:
        yield from chunk.content
