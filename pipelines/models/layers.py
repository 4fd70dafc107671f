"""The decoder layers of a model: which leaves are theirs, and passes that begin at one of them.

A layer trained from one region only needs a backward pass that ends there. What lies below is the same in every such
pass, so it is computed once: one pass notes what it handed to layer k, the next begins with that at layer k. Rows that
share a prefix take two passes, one over the prefixes and one over the rows.
"""

import logging
from copy import copy
from typing import Any, NamedTuple

import mlx.core as mx
from mlx import nn

from pipelines import backend
from pipelines.models.batching import batch_cache, rows_fit, try_added_masks
from pipelines.models.chain import Beginning, Call, Chain, Recording, Tape
from pipelines.models.head import Head
from pipelines.models.idle import idle_leaves
from pipelines.models.leaves import leaves
from pipelines.models.logprobs import SplitModel
from pipelines.models.lora import is_adapter, narrowed
from pipelines.models.modes import evaluating
from pipelines.models.parts import installed, may_drop
from pipelines.models.prefix import Prefix, can_share, copied, grows_by_key_and_value, rounded, trial
from pipelines.models.stand_ins import Checkpointed, Entered, Given, Listening, Skipped, layers_of, standing_in

log = logging.getLogger(__name__)

PROBE = mx.array([[0, 1, 2]])
"""A short input, for trials."""
SAME_GRADIENT = {4: 0.01, 2: 0.1}
"""How far a layer's gradient may be from that of a pass that keeps everything, for `chains`: as a part of its norm, by
the bytes of a number of the states. Adapters are float32 and no more exact than those."""
OTHER_LAYERS = (AttributeError, IndexError, RuntimeError, TypeError, ValueError)
"""What running a model in parts raises if its layers do not take states and give states."""


class Entry(NamedTuple):
    """Where a pass begins."""

    layer: int
    states: tuple[mx.array, ...]  # [N, T, H], what that layer is given; before it that of the prefixes, where shared


class Passed(NamedTuple):
    """What a pass gives: the last hidden states, and an entry for the next pass where one was asked for."""

    hidden: mx.array  # [N, T, H]
    entry: Entry | None


class LayerStack:
    """The layers of one model, and its body (`SplitModel.body`) run in parts."""

    def __init__(self, model: nn.Module, split: SplitModel, *, checkpointing: bool = False, tried: bool = True) -> None:
        """What the model can do is tried; if not `tried`, caches and shapes decide and no weight is read."""
        self.model = model
        self.split = split
        self.checkpointing = checkpointing
        """Whether a layer keeps nothing for its backward pass but its input, and is computed again there."""
        self.layers = layers_of(model)
        if tried and self.layers:
            try_added_masks(model)
        self._prefixes = self._find_prefixes()
        self.idle = idle_leaves(model, split) if tried and self.layers else frozenset[str]()
        """Trainable leaves that there is nothing to learn with."""
        self.head = Head(split)
        self._chain = Chain(self.layers)
        self.chains = self._can_chain(tried=tried)
        """Whether a pass that learns is recorded, and gone back through layer by layer: `record` and `backward`."""
        self.resumable = tried and self._can_resume()
        self.shares = self._can_share(tried=tried)
        """Whether `run` and `record` take a prefix, and it pays."""

    def __len__(self) -> int:
        return len(self.layers)

    def trainable(self) -> dict[str, int | None]:
        """Trainable leaves with their layers, counted from 0; None for those in no layer (embeddings, norm, head).

        Without the idle ones.
        """
        names = leaves(self.model.trainable_parameters())
        return {name: self.layer_of(name) for name in names if name not in self.idle}

    def layer_of(self, name: str) -> int | None:
        """The layer that a leaf belongs to."""
        return next((layer for prefix, layer in self._prefixes.items() if name.startswith(prefix)), None)

    @property
    def head_prefix(self) -> str:
        """What the names of the head's leaves begin with."""
        head = self.head.module
        return next((f"{name}." for name, module in self.model.named_modules() if name and module is head), "")

    def freeze_all_but(self, names: frozenset[str]) -> None:
        """Take the trainable leaves that are not named out of `trainable_parameters`."""
        modules = dict(self.model.named_modules())
        for name in leaves(self.model.trainable_parameters()):
            if name not in names:
                module, _, leaf = name.rpartition(".")
                modules[module].freeze(recurse=False, keys=[leaf])

    def run(
        self, tokens: mx.array, *, prefix: Prefix | None = None, entry: Entry | None = None, note: int | None = None
    ) -> Passed:
        """Hidden states `[N, T, H]` of tokens `[N, T]`, which continue the prefix if there is one.

        From `entry` on, and noting what layer `note` is given.
        """
        first = 0 if entry is None else entry.layer
        if prefix is None:
            steps = [lambda: self.split.body(tokens)]
        else:
            cache = self._empty_cache(tokens, prefix)
            cache[:first] = [cache[first]] * first  # models make their masks from the first
            steps = [
                lambda: self.split.body(prefix.tokens, cache=cache),
                lambda: self.split.body(tokens, cache=copied(cache, prefix.members)),
            ]
        noted: list[mx.array] = []
        narrow = self._narrow_adapters() if self.chains else {}  # as `record` has them
        hidden = mx.array(0.0)
        for number, step in enumerate(steps):
            given = None if entry is None else (first, entry.states[number])
            with installed(self.model, narrow), standing_in(self.layers, self._stand_ins(given, note, noted)):
                hidden = step()
        return Passed(hidden, None if note is None or not noted else Entry(note, tuple(map(mx.stop_gradient, noted))))

    def _stand_ins(self, given: tuple[int, mx.array] | None, note: int | None, noted: list[mx.array]) -> list[Any]:
        """Layers that skip, begin and note as `run` says."""
        found = [Checkpointed(layer) if self.checkpointing else layer for layer in self.layers]
        if given is not None:
            first, states = given
            found[:first] = map(Skipped, self.layers[:first])
            found[first] = Entered(found[first], states)
        if note is not None:
            found[note] = Listening(found[note], noted)
        return found

    def record(self, tokens: mx.array, launch: backend.Launch, *, prefix: Prefix | None = None) -> Tape:
        """A pass that `chain` can go back through."""
        rows, (tokens, prefix) = tokens.shape[0], rounded(tokens, prefix)
        calls: list[list[Call]] = [[] for _ in self.layers]
        recording = [Recording(layer, noted, launch) for layer, noted in zip(self.layers, calls, strict=True)]
        with installed(self.model, self._narrow_adapters()), standing_in(self.layers, recording):
            if prefix is None:
                self.split.body(tokens)
                return Tape([tokens], calls, None, rows)
            cache = self._empty_cache(tokens, prefix)
            beginning = Beginning(list(map(copy, cache)), mx.array(prefix.padding), prefix.members)
            self.split.body(prefix.tokens, cache=cache)
            self.split.body(tokens, cache=copied(cache, prefix.members))
            return Tape([prefix.tokens, tokens], calls, beginning, rows)

    def _narrow_adapters(self) -> dict[str, mx.array]:
        """All that there are, as a pass that learns applies them."""
        adapters = {name: leaf for name, leaf in leaves(self.model.parameters()).items() if is_adapter(name)}
        return narrowed(adapters, self.begin(PROBE).dtype) if adapters else {}

    def finish(self, tokens: mx.array, last: mx.array) -> mx.array:
        """Hidden states `[n, T, H]`, given what the last layer gave."""
        with standing_in(self.layers, [*map(Skipped, self.layers[:-1]), Given(self.layers[-1], last)]):
            return self.split.body(tokens)

    def begin(self, tokens: mx.array) -> mx.array:
        """What the first layer is given, `[n, T, H]`. ValueError for a model that does not ask the stand-ins."""
        noted: list[mx.array] = []
        with standing_in(self.layers, [Listening(Skipped(self.layers[0]), noted), *map(Skipped, self.layers[1:])]):
            self.split.body(tokens)
        if not noted:
            raise ValueError("the layers that the model shows are not those that it goes through")
        return noted[0]

    def backward(
        self, tape: Tape, to_last: mx.array, names: frozenset[str], lowest: int, launch: backend.Launch
    ) -> dict[str, mx.array]:
        """Gradients of the named leaves of layers from `lowest` on, and of those that make what the first is given.

        to_last `[n, T, H]`: the gradient of `tape.last`.
        """
        wanted: list[dict[str, mx.array]] = [{} for _ in self.layers]
        outside: dict[str, mx.array] = {}
        for name, leaf in leaves(self.model.trainable_parameters()).items():
            if name in names:
                prefix = next((prefix for prefix in self._prefixes if name.startswith(prefix)), None)
                if prefix is None:
                    outside[name] = leaf
                else:
                    wanted[self._prefixes[prefix]][name.removeprefix(prefix)] = leaf
        found, back = self._chain.backward(tape, to_last, wanted, lowest, launch)
        gradients = {
            prefix + name: leaf for prefix, number in self._prefixes.items() for name, leaf in found[number].items()
        }
        if lowest or not outside:
            return gradients

        def first(*arrays: mx.array) -> list[mx.array]:
            with installed(self.model, dict(zip(outside, arrays, strict=True))):
                return [self.begin(tokens).astype(mx.float32) for tokens in tape.tokens]

        exact = [leaf.astype(mx.float32) for leaf in outside.values()]  # a token's gradients are summed one by one
        _, more = mx.vjp(first, exact, [states.astype(mx.float32) for states in back])
        return gradients | dict(zip(outside, more, strict=True))

    def _empty_cache(self, tokens: mx.array, prefix: Prefix) -> list[Any]:
        return batch_cache(self.model, list(prefix.padding), prefix.tokens.shape[1] + tokens.shape[1])

    def _find_prefixes(self) -> dict[str, int]:
        index = {id(layer): number for number, layer in enumerate(self.layers)}
        return {f"{name}.": index[id(module)] for name, module in self.model.named_modules() if id(module) in index}

    def _can_resume(self) -> bool:
        """Whether a pass in two parts gives what a whole one does: not every model just chains its layers."""
        if not self.layers:
            return False
        last = len(self.layers) - 1
        with evaluating(self.model):
            try:
                whole = self.run(PROBE, note=last)
                parts = None if whole.entry is None else self.run(PROBE, entry=whole.entry)
            except OTHER_LAYERS:
                return False
            return parts is not None and bool(mx.array_equal(whole.hidden, parts.hidden).item())

    def _can_chain(self, *, tried: bool) -> bool:
        """On a GPU, and where little is to be kept: whether layers are a chain, and drop nothing of their inputs."""
        if not self.layers or not (backend.on_gpu() or self.checkpointing) or self.split.head_module is None:
            return False
        if not leaves(self.model.trainable_parameters()):  # a reference
            return False
        if any(map(may_drop, [*self.layers, self.split.head_module()])):
            return False
        try:
            self.begin(PROBE)
            found = not tried or self._goes_back()
        except OTHER_LAYERS:
            found = False
        if not found:
            log.info("layers keep everything for the backward pass: this model does not just go from one to the next")
        return found

    def _goes_back(self) -> bool:
        """Whether the gradients of each layer, and of what is in no layer, are those of a whole pass."""
        own, training = leaves(self.model.trainable_parameters()), self.model.training
        dtype = self.begin(PROBE).dtype
        self.model.train()  # for the kernels that have a gradient; nothing is dropped
        try:
            turns = backend.Turns()
            tape = self.record(PROBE, turns)
            with installed(self.model, self._narrow_adapters()):
                hidden = self.split.body(PROBE)
                if not tape.understood or not mx.array_equal(self.finish(PROBE, tape.last), hidden):
                    return False
                weights = mx.random.normal(hidden.shape, key=mx.random.key(0)).astype(hidden.dtype)

                def whole(given: dict[str, mx.array]) -> mx.array:
                    with installed(self.model, narrowed(given, dtype)):
                        return (weights * self.split.body(PROBE)).sum()

                def end(last: mx.array, given: dict[str, mx.array]) -> mx.array:
                    with installed(self.model, narrowed(given, dtype)):
                        return (weights * self.finish(PROBE, last)).sum()

                to_last, ending = mx.grad(end, argnums=(0, 1))(tape.last, own)
                expected = mx.grad(whole)(own)
            found = self.backward(tape, to_last, frozenset(own), 0, turns)
            added = {name: found[name] + leaf for name, leaf in ending.items()}
            return self._alike(added, expected, SAME_GRADIENT[dtype.size])
        finally:
            self.model.train(training)

    def _alike(self, found: dict[str, mx.array], expected: dict[str, mx.array], most: float) -> bool:
        """Whether the gradient of each layer differs by at most this part of its norm."""
        gaps: dict[int | None, mx.array] = {}
        sizes: dict[int | None, mx.array] = {}
        for name, leaf in expected.items():
            layer, wanted = self.layer_of(name), leaf.astype(mx.float32)
            gaps[layer] = gaps.get(layer, mx.array(0.0)) + (found[name].astype(mx.float32) - wanted).square().sum()
            sizes[layer] = sizes.get(layer, mx.array(0.0)) + wanted.square().sum()
        return bool((mx.stack(list(gaps.values())) <= most**2 * mx.stack(list(sizes.values()))).all())

    def _can_share(self, *, tried: bool) -> bool:
        """Not with checkpointed layers that are no chain: with a cache those keep everything."""
        if not self.layers or (self.checkpointing and not self.chains):
            return False
        if not tried:
            return grows_by_key_and_value(self.model) and rows_fit(self.model)
        with evaluating(self.model):
            return can_share(self.model, self.split.body) and self._learns_through_prefixes()

    def _learns_through_prefixes(self) -> bool:
        """Whether the gradient is a number: what stands at padding is in no result, and may be infinite."""
        tokens, prefix = trial()

        def summed(states: tuple[mx.array, ...]) -> mx.array:
            return self.run(tokens, prefix=prefix, entry=Entry(0, states)).hidden.sum()

        try:
            entry = self.run(tokens, prefix=prefix, note=0).entry
            return entry is not None and all(mx.isfinite(leaf).all().item() for leaf in mx.grad(summed)(entry.states))
        except OTHER_LAYERS:
            return False
