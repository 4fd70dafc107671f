"""The rollout engine: all rows of an update decoded together, prompts computed once per group.

Prompts of like length are read together, left-padded for mlx-lm's batch caches, which give each row its own positions
and mask. Then the cache is copied to the group's rows. Rows that finished leave the batch when that is worth copying
the others; where there are more rows than `generation.rollout_batch_size`, waiting ones take their places. None of this
changes a sample.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from mlx import nn

from pipelines import backend
from pipelines.config import GenerationConfig
from pipelines.errors import DataError
from pipelines.generation.caches import batching, may_join
from pipelines.generation.controls import Controls
from pipelines.generation.decoder import Decoder
from pipelines.generation.guide import Guide
from pipelines.generation.rollouts import Finished, Rollouts, Window, Written
from pipelines.generation.sampling import Sampler
from pipelines.generation.waiting import Waiting
from pipelines.generation.width import rows_at_once
from pipelines.models.batching import decoding
from pipelines.models.modes import evaluating


def generate(
    model: nn.Module,
    prompts: list[np.ndarray],
    *,
    group_size: int,
    sampling: GenerationConfig,
    eos_ids: frozenset[int],
    max_tokens: int,
    seeds: np.ndarray,
    controls: Controls | None = None,
    preopened: Sequence[bool] | None = None,
    record_drawn: bool = False,
    on_finished: Finished | None = None,
) -> Rollouts:
    """Sample `group_size` completions of at most `max_tokens` tokens for every prompt.

    seeds: uint32 `[N, 2]`, one key a row; token t of a row is drawn with (key[0], key[1] + t).
    controls: what `make_controls` makes of `sampling`; without them its tags, budget and stop texts do nothing.
    preopened `[B]`: the prompts that end inside an open think tag (None: none).
    on_finished: told of each row once, as soon as it is seen to have ended, while others go on.
    At most `sampling.rollout_batch_size` rows are decoded at a time, fewer where the model cannot batch so many.
    Dropout is off, in a model that trains too. Raises DataError for an empty prompt.
    """
    started = time.perf_counter()
    rows = len(prompts) * group_size
    if seeds.shape != (rows, 2) or seeds.dtype != np.uint32:
        raise ValueError(f"{rows} rows need uint32 seeds of shape ({rows}, 2), not {seeds.dtype} {seeds.shape}")
    if max_tokens < 1:
        raise ValueError(f"max_tokens: at least 1, not {max_tokens}")
    if any(len(prompt) == 0 for prompt in prompts):
        raise DataError("a prompt without tokens cannot be continued", hint="remove empty prompts from the data")
    opened = np.repeat(np.zeros(len(prompts), bool) if preopened is None else np.array(preopened, bool), group_size)
    written = Written(rows, max_tokens, np.array(sorted(eos_ids), np.int32))
    sampler = Sampler(sampling, record_drawn=record_drawn)
    width = rows_at_once(model, prompts, group_size, max_tokens, sampling)
    with evaluating(model), decoding(model):
        may_share = batching(model) if min(width, rows) > 1 else "one"
        joining = may_share == "all" and width < rows and may_join(model)
        waiting = Waiting(prompts, group_size, width, may_share, may_join=joining)
        decoder = Decoder(model, sampler, max_tokens, max(map(len, prompts), default=0))

        def begin(some: np.ndarray) -> None:
            own = some // group_size
            first = np.diff(own, prepend=-1) != 0  # the first row of each prompt
            guide = Guide(sampling, controls, [prompts[prompt] for prompt in own], opened[some])
            decoder.join(some, [prompts[prompt] for prompt in own[first]], np.cumsum(first) - 1, seeds[some], guide)

        _decode(decoder, waiting, begin, written, _teller(written, prompts, group_size, on_finished))
    return written.rollouts(prompts, group_size, started)


def _decode(
    decoder: Decoder,
    waiting: Waiting,
    begin: Callable[[np.ndarray], None],
    written: Written,
    tell: Callable[[np.ndarray], None],
) -> None:
    """Advance the decoder's rows, drop those that finished, and begin others, until none is left.

    A GPU is given the next window before the last one is looked at, so that it does not wait for us, unless some rows
    are as long as they may be: those leave first. On a CPU rows that have finished would only be computed for nothing.
    """
    most_in_flight = 2 if backend.on_gpu() else 1
    in_flight = deque[Window]()
    while waiting or decoder.unfinished.size:
        some = waiting.take(decoder.places)
        if some.size:
            begin(some)
        if decoder.room:
            in_flight.append(decoder.launch())
        if len(in_flight) == most_in_flight or not decoder.room:
            finished = written.add(in_flight.popleft())
            tell(finished)
            decoder.drop(finished)


def _teller(
    written: Written, prompts: list[np.ndarray], group_size: int, on_finished: Finished | None
) -> Callable[[np.ndarray], None]:
    """A function that passes on rows that have ended, as rollouts of their own."""

    def tell(rows: np.ndarray) -> None:
        if on_finished is not None and rows.size:
            on_finished(rows, written.part(rows, [prompts[row // group_size] for row in rows]))

    return tell
