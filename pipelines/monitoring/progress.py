"""What people see of a run while it goes on: a plain line now and then, or a live view on a terminal."""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PACE_UPDATES = 20
"""The time left is estimated from so many of the last updates."""

PROMPT_CHARACTERS = 60
COMPLETION_CHARACTERS = 160


@dataclass(frozen=True)
class Moment:
    """One update as it is shown."""

    step: int
    total_steps: int
    values: Mapping[str, float]
    step_seconds: float
    left_seconds: float


class Pace:
    """How long an update takes, checkpoints and all that lies between two updates included."""

    def __init__(self, step: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks = deque([(step, clock())], maxlen=PACE_UPDATES + 1)

    def after(self, step: int) -> float:
        """Seconds per update over the last updates, this one included."""
        if step > self._marks[-1][0]:
            self._marks.append((step, self._clock()))
        (first, began), (last, now) = self._marks[0], self._marks[-1]
        return (now - began) / max(last - first, 1)


class Field(NamedTuple):
    """A metric's short name on screen, and how its value is written."""

    label: str
    metric: str
    text: Callable[[float], str]


def digits(count: int) -> Callable[[float], str]:
    """So many significant digits, small exponents without a leading zero."""
    return lambda value: f"{value:.{count}g}".replace("e-0", "e-").replace("e+0", "e+")


def percent(value: float) -> str:
    """A fraction as a whole percentage."""
    return f"{value:.0%}"


def memory_text(gb: float) -> str:
    """1.2 GB, 97 MB."""
    return f"{gb:.1f} GB" if gb >= 1 else f"{1000 * gb:.0f} MB"


LENGTH = Field("len", "completions/mean_length", "{:.1f}".format)
TRUNCATED = Field("trunc", "completions/clipped_ratio", percent)
KL = Field("kl", "kl", digits(2))
ENTROPY = Field("entropy", "entropy", digits(3))
GRADIENT = Field("grad", "grad_norm", digits(2))
RATE = Field("lr", "learning_rate", lambda value: f"{value:.1e}".replace("e-0", "e-"))
LOSS = Field("loss", "loss", digits(3))
REWARD = Field("reward", "reward", "{:.3f}".format)

ROWS: tuple[tuple[Field, ...], ...] = (
    (KL, ENTROPY, LOSS, GRADIENT, RATE),
    (
        LENGTH,
        Field("thinking", "completions/mean_thinking_length", "{:.1f}".format),
        Field("answer", "completions/mean_answer_length", "{:.1f}".format),
        TRUNCATED,
    ),
    (
        Field("rollout", "rollout/tokens_per_second", "{:,.0f} tokens/s".format),
        Field("update", "update/tokens_per_second", "{:,.0f} tokens/s".format),
        Field("memory", "memory/peak_gb", memory_text),
    ),
)
"""The live view below the rewards."""


def plain_line(moment: Moment) -> str:
    """Such as `step 12/100  reward 0.612  exact_match 0.58  len 23.1  trunc 0%  grad 0.41  1.1 s  ETA 1:38`."""
    loss = () if "reward" in moment.values else (LOSS,)
    scores = (*_scores(moment.values), *_rewards(moment.values))
    shown = _shown((*scores, *loss, LENGTH, TRUNCATED, KL, GRADIENT, RATE), moment.values)
    timing = [_timing(moment)] if moment.step else []  # step 0 is no update: the starting model's evaluation
    return "  ".join([_heading(moment), *shown, *timing])


def clock_text(seconds: float) -> str:
    """1:38, or 2:05:00 from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def sample_line(record: Mapping[str, Any]) -> str:
    """Prompt and completion of a sample, shortened, on one line and without control characters."""
    prompt, completion = _one_line(record.get("prompt")), _one_line(record.get("completion"))
    if len(prompt) > PROMPT_CHARACTERS:
        prompt = "..." + prompt[-PROMPT_CHARACTERS:]  # the question is at its end
    if len(completion) > COMPLETION_CHARACTERS:
        half = COMPLETION_CHARACTERS // 2
        completion = f"{completion[:half]} ... {completion[-half:]}"  # the answer is at its end
    return f"{prompt} -> {completion}" if completion else prompt


def wants_live_view() -> bool:
    """Whether stderr is a terminal that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class LiveView:
    """A few lines at the bottom of the terminal, redrawn in place; what is printed to stderr scrolls above them."""

    def __init__(self, console: "Console | None" = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self.stopping = ""
        """The last line, once somebody has asked the run to end."""
        self._moment: Moment | None = None
        self._scores = ""
        self._sample = ""
        self._live = Live(
            get_renderable=self._render,
            console=console or Console(stderr=True),
            redirect_stdout=False,  # stdout is data
            refresh_per_second=4,
        )
        self._live.start()

    def show(self, moment: Moment) -> None:
        """Put a later update in place."""
        self._moment = moment
        if scores := _shown(_scores(moment.values), moment.values):
            self._scores = "   ".join(scores) + f" after update {moment.step}"
        self._live.refresh()

    def sample(self, record: Mapping[str, Any]) -> None:
        """Show another sample from now on."""
        self._sample = sample_line(record)

    def close(self) -> None:
        """Leave the last state on the screen and give the terminal back."""
        self._live.stop()

    def _render(self) -> "RenderableType":
        from rich.console import Group
        from rich.padding import Padding
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        moment, stopping = self._moment, [Text(self.stopping, style="bold")] if self.stopping else []
        if moment is None:
            return Group(Text("first update ...", style="dim"), *stopping)
        rows = (_rewards(moment.values), *ROWS)
        texts = ["   ".join(shown) for row in rows if (shown := _shown(row, moment.values))]
        texts = [self._scores, *texts, f"sample  {self._sample}" if self._sample else ""]
        return Group(
            Text(f"{_heading(moment)}   {_timing(moment)}", style="bold"),
            Padding(ProgressBar(total=moment.total_steps, completed=moment.step, width=60), 0),  # the bar ends no line
            *(Text(text, overflow="fold") for text in texts if text),
            *stopping,
        )


def _heading(moment: Moment) -> str:
    return f"step {moment.step}/{moment.total_steps}"


def _timing(moment: Moment) -> str:
    return f"{moment.step_seconds:.1f} s  ETA {clock_text(moment.left_seconds)}"


def _rewards(values: Mapping[str, float]) -> tuple[Field, ...]:
    """The total reward and its components, in the order they were logged."""
    means = [name for name in values if name.startswith("rewards/") and name.endswith("/mean")]
    components = (Field(name.removeprefix("rewards/").removesuffix("/mean"), name, digits(3)) for name in means)
    return (REWARD, *components)


def _scores(values: Mapping[str, float]) -> tuple[Field, ...]:
    """The accuracy of each benchmark that was scored after the update."""
    names = [name for name in values if name.startswith("eval/") and name.endswith("/accuracy")]
    return tuple(Field(name.removesuffix("/accuracy").replace("/", " "), name, "{:.1%}".format) for name in names)


def _shown(fields: tuple[Field, ...], values: Mapping[str, float]) -> list[str]:
    return [f"{field.label} {field.text(values[field.metric])}" for field in fields if field.metric in values]


def _one_line(text: object) -> str:
    if not isinstance(text, str):
        return ""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())
