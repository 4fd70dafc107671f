"""Scores of tokens under the head of a model, and their gradient as a step of its own, part by part.

With logits l, log Z = logsumexp(l) and p = exp(l - log Z), token t has the log-probability l_t - log Z and the entropy
H = -sum_j p_j (l_j - log Z). Their gradients g and e make that of l_j: g (1[j = t] - p_j) - e p_j (l_j - log Z + H).
On a GPU a part is one compiled function there and one back, which together take a third of what autodiff takes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
from mlx import nn

from pipelines import backend
from pipelines.models.leaves import leaves
from pipelines.models.logprobs import Adjust, SplitModel, Spots
from pipelines.models.lora import narrowed
from pipelines.models.parts import installed

Arrays = dict[str, mx.array]
Tokens = tuple[mx.array, mx.array, mx.array]
"""m of them: the hidden states before them `[m, H]`, their ids, and their cells for `Adjust`, int32 `[m]`."""
Found = tuple[mx.array, mx.array, mx.array]
"""Their log-probabilities, entropies and log Z, float32 `[m]`."""


@dataclass(frozen=True)
class _Functions:
    """There: (leaves, tokens) -> found. Back: (leaves, tokens, found, (g, e)) -> gradients of states and leaves."""

    there: Callable[[tuple[Arrays, Arrays], Tokens], Found]
    back: Callable[[tuple[Arrays, Arrays], Tokens, Found, tuple[mx.array, mx.array]], tuple[mx.array, Arrays]]


@dataclass(frozen=True)
class Scores:
    """What the head gave M tokens, float32 `[M]`, and the way back."""

    logprobs: mx.array
    entropies: mx.array
    _parts: list[tuple[Tokens, Found]]
    _leaves: tuple[Arrays, Arrays]
    _functions: _Functions

    def backward(
        self, to_logprobs: mx.array, to_entropies: mx.array, launch: backend.Launch
    ) -> tuple[mx.array, Arrays]:
        """Gradients of the states `[M, H]`, and in float32 of the head's trainable leaves."""
        summed = {name: mx.zeros(leaf.shape) for name, leaf in self._leaves[0].items()}
        to_states: list[mx.array] = []
        for part, asked in zip(
            self._parts, zip(*map(self._by_part, (to_logprobs, to_entropies)), strict=True), strict=True
        ):
            to_part, found = self._functions.back(self._leaves, *part, asked)
            to_states.append(to_part)
            summed = {name: total + found[name] for name, total in summed.items()}
            launch([to_part, *summed.values()])
        return mx.concatenate(to_states)[: to_logprobs.shape[0]], summed

    def _by_part(self, values: mx.array) -> list[mx.array]:
        """`[M]` in the parts of the tokens, 0 where a part goes on."""
        rows = self._parts[0][1][0].shape[0]
        return list(mx.split(mx.pad(values, (0, -values.shape[0] % rows)), len(self._parts)))


class Head:
    """The head of a model that is apart from its body, `SplitModel.head`."""

    def __init__(self, split: SplitModel) -> None:
        self.split = split
        self._compiled: dict[float, _Functions] = {}

    def score(
        self, states: mx.array, at: Spots, temperature: float, adjust: Adjust | None, launch: backend.Launch
    ) -> Scores:
        """Of the M tokens at these spots, states `[M, H]` being the last hidden states before them."""
        functions, module = self._functions(temperature, adjust), self.module
        own = leaves(module.trainable_parameters())
        rest = {name: leaf for name, leaf in leaves(module.parameters()).items() if name not in own}
        parts: list[tuple[Tokens, Found]] = []
        for tokens in self._parts(states, at):
            found = functions.there((own, rest), tokens)
            launch([*found])
            parts.append((tokens, found))
        logprobs, entropies = (mx.concatenate([found[n] for _, found in parts])[: states.shape[0]] for n in (0, 1))
        return Scores(logprobs, entropies, parts, (own, rest), functions)

    @property
    def module(self) -> nn.Module:
        """Whose leaves the head reads."""
        if self.split.head_module is None:
            raise ValueError("the head of this model is not apart from its body")
        return self.split.head_module()

    def _parts(self, states: mx.array, at: Spots) -> list[Tokens]:
        """Parts of one size; on a GPU of a power of two, so that one function fits the tokens of any batch."""
        count, rows = states.shape[0], self.split.rows_at_once() or states.shape[0]
        rows = (
            min(1 << (rows.bit_length() - 1), 1 << (count - 1).bit_length()) if backend.on_gpu() else min(rows, count)
        )
        number = -(-count // rows)
        given = [
            mx.pad(each, [(0, number * rows - count)] + [(0, 0)] * (each.ndim - 1))
            for each in (states, at.targets, at.cells)
        ]
        return list(zip(*(mx.split(each, number) for each in given), strict=True))

    def _functions(self, temperature: float, adjust: Adjust | None) -> _Functions:
        """An adjustment brings arrays of its own: what is compiled for it would keep those."""
        if adjust is None and temperature in self._compiled:
            return self._compiled[temperature]
        made = _Functions(self._there(temperature, adjust), self._back(temperature, adjust))
        if adjust is None:
            made = _Functions(backend.compiled(made.there), backend.compiled(made.back))
            self._compiled[temperature] = made
        return made

    def _logits(self, arrays: Arrays, tokens: Tokens, temperature: float, adjust: Adjust | None) -> mx.array:
        """Float32 `[m, V]`, of the distribution that completions were sampled from."""
        with installed(self.module, narrowed(arrays, tokens[0].dtype)):
            logits = self.split.head(tokens[0]).astype(mx.float32)
        if adjust is not None:
            logits = adjust(logits, tokens[2])
        return logits if temperature == 1.0 else logits / temperature

    def _there(self, temperature: float, adjust: Adjust | None) -> Callable[..., Found]:
        def there(arrays: tuple[Arrays, Arrays], tokens: Tokens) -> Found:
            logits = self._logits(arrays[0] | arrays[1], tokens, temperature, adjust)
            normalisers = mx.logsumexp(logits, axis=-1)
            logs = logits - normalisers[:, None]
            chosen = mx.take_along_axis(logits, tokens[1][:, None], axis=-1)[:, 0]
            return chosen - normalisers, -(mx.exp(logs) * logs).sum(axis=-1), normalisers

        return there

    def _back(self, temperature: float, adjust: Adjust | None) -> Callable[..., tuple[mx.array, Arrays]]:
        def back(
            arrays: tuple[Arrays, Arrays], tokens: Tokens, found: Found, asked: tuple[mx.array, mx.array]
        ) -> tuple[mx.array, Arrays]:
            def weighed(states: mx.array, own: Arrays) -> mx.array:
                logits = self._logits(own | arrays[1], (states, *tokens[1:]), temperature, adjust)
                return (logits * _to_logits(mx.stop_gradient(logits), tokens[1], found, asked)).sum()

            return mx.grad(weighed, argnums=(0, 1))(tokens[0], arrays[0])

        return back


def _to_logits(logits: mx.array, targets: mx.array, found: Found, asked: tuple[mx.array, mx.array]) -> mx.array:
    """The gradient `[m, V]` of the module's docstring."""
    _, entropies, normalisers = (each[:, None] for each in found)
    to_logprobs, to_entropies = (each[:, None] for each in asked)
    logs = logits - normalisers
    hit = mx.arange(logits.shape[-1])[None] == targets[:, None]
    return mx.where(hit, to_logprobs, 0.0) - mx.exp(logs) * (to_logprobs + to_entropies * (logs + entropies))
