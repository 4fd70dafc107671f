"""One side of the conversation: asks the other to do things, and does what it is asked while it waits.

A request is `["do", action, arguments]` and its answer `["ok", value, changes, printed, loan]` or
`["no", error, changes, printed, 0]`. Requests nest (a callback is asked for while a call runs), so whoever waits for an
answer serves what comes before it. `changes` are the containers among the arguments that the work changed in place.
A list that an object keeps, as `node.children`, is lent: what is then done to it over here goes back as
`["fill", loan, changes]` before the next word.
"""

import contextlib
import os
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from pipelines.sandbox import wire

DEEPEST_REQUESTS = 200
MOST_LOANS, LARGEST_LOAN = 8, 1000
"""Of the latest loans, and of what they hold in all, changes are looked for each time."""


class Gone(BaseException):
    """The other side is no more, or talks nonsense. No test may catch this and pass."""


class Side(wire.Hooks, Protocol):
    """What candidate and judge do differently."""

    strict: bool

    def perform(self, action: str, arguments: list[Any]) -> Any: ...

    def encode_error(self, error: BaseException, encoder: wire.Encoder) -> Any: ...

    def decode_error(self, item: Any, decoder: wire.Decoder) -> BaseException: ...

    def needs(self, error: BaseException) -> bool: ...

    def printed(self) -> str: ...

    def hear(self, text: str) -> None: ...


class Caught(contextlib.AbstractContextManager["Caught"]):
    """Run a block and keep what it raised, whatever that is: `with Caught() as caught: ...; caught.error`."""

    error: BaseException | None = None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.error = error
        return not isinstance(error, Gone)


class Loan:
    """Containers that an answer brought, and what they held then."""

    def __init__(self, containers: list[Any]) -> None:
        self.containers = containers
        self.before = [wire.snapshot(container) for container in containers]

    def changed(self) -> list[int]:
        pairs = zip(self.containers, self.before, strict=True)
        return [number for number, (container, old) in enumerate(pairs) if not wire.unchanged(container, old)]

    def settle(self, number: int) -> None:
        """What it holds now is known to both sides."""
        self.before[number] = wire.snapshot(self.containers[number])


class Peer:
    """The connection: a descriptor to read and write, and the side whose rules hold here."""

    def __init__(self, descriptor: int, side: Side, limit: int) -> None:
        self.descriptor, self.side, self.limit = descriptor, side, limit
        self.gone = False
        self._depth = 0
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._loans = 0
        self._lent: dict[int, Loan] = {}
        self._borrowed: dict[int, Loan] = {}

    @property
    def at_rest(self) -> bool:
        """Whether no request is under way from here."""
        return not self._depth

    def ask(self, action: str, *arguments: Any) -> Any:
        """Have the other side do something; what it raises is raised here."""
        if os.getpid() != self._owner:
            raise Gone("a copy of the process")
        with self._lock:
            return self._ask(action, arguments)

    def _ask(self, action: str, arguments: tuple[Any, ...]) -> Any:
        if self._depth > DEEPEST_REQUESTS:
            raise RecursionError("calls between the test and the solution are nested too deeply")
        encoder = wire.Encoder(self.side)
        self._depth += 1
        try:
            self._return()
            self._send(["do", action, [encoder.encode(item) for item in arguments]])
            answer = self._wait()
        finally:
            self._depth -= 1
        try:
            return self._settle(answer, encoder, keeps=keeps(action, arguments))
        except StopIteration as error:
            if action == "send" or "__next__" in arguments[1:2] or not self.side.strict:
                raise
            raise RuntimeError("StopIteration outside an iteration") from error  # `map` would end at it in silence

    def serve(self) -> None:
        """Do what is asked until the other side hangs up."""
        with contextlib.suppress(EOFError):
            while True:
                self._serve_one(wire.read_frame(self.descriptor, self.limit))

    def _wait(self) -> list[Any]:
        while True:
            message = self._receive()
            if message[0] in ("ok", "no") and len(message) == 5:
                return message
            self._serve_one(message)

    def _settle(self, answer: list[Any], encoder: wire.Encoder, *, keeps: bool) -> Any:
        """Write changes back, pass on what was printed, then give the value or raise the error."""
        kind, result, changes, printed, loan = answer
        decoder = wire.Decoder(self.side, encoder.containers)
        with self._sense():
            known = len(encoder.containers)
            for number, content in changes:
                if type(number) is not int or not 0 <= number < known:
                    raise wire.WireError("a change to what was never sent")
                decoder.fill(encoder.containers[number], content, 0)
            outcome = self.side.decode_error(result, decoder) if kind == "no" else decoder.decode(result)
            self.side.hear(str(printed))
            if keeps and type(loan) is int and loan:
                _keep(self._borrowed, loan, Loan(decoder.containers[known:]))
        if kind == "no":
            raise outcome
        return outcome

    def _serve_one(self, message: Any) -> None:
        with self._sense():
            word, action, arguments = message
            if word == "fill":
                return self._fill(action, arguments)
            if word != "do" or not isinstance(action, str):
                raise wire.WireError("neither a request nor an answer")
            decoder = wire.Decoder(self.side)
            values = decoder.several(arguments, 0)
        before = [wire.snapshot(container) for container in decoder.containers]
        with Caught() as caught:
            result = self.side.perform(action, values)
        if os.getpid() != self._owner:
            os._exit(0)  # a fork that the work made and that came back: it has no part in the conversation
        error = caught.error
        encoder = wire.Encoder(self.side, decoder.containers)
        with Caught() as unsent:
            changes = [
                [number, encoder.content(container, 1)]
                for number, (container, old) in enumerate(zip(decoder.containers, before, strict=True))
                if not wire.unchanged(container, old)
            ]
            body = self.side.encode_error(error, encoder) if error else encoder.encode(result)  # pyright: ignore[reportPossiblyUnboundVariable]
            loan = 0 if error else self._lend(action, values, encoder.containers[len(before) :])
            self._return()
            self._send(["no" if error else "ok", body, changes, self.side.printed(), loan])
        if isinstance(unsent.error, OSError):
            raise Gone(f"nobody listens: {unsent.error}")
        if unsent.error:
            failure = self.side.encode_error(unsent.error, wire.Encoder(self.side))
            self._send(["no", failure, [], "", 0])
        return None

    def _lend(self, action: str, arguments: list[Any], containers: list[Any]) -> int:
        """The number of a loan of these containers; 0 if they are no object's, or too large."""
        if not keeps(action, arguments) or not containers or sum(map(len, containers)) > LARGEST_LOAN:
            return 0
        self._loans += 1
        _keep(self._lent, self._loans, Loan(containers))
        return self._loans

    def _return(self) -> None:
        """Tell the other side what was done here to containers that it lent."""
        for number, loan in list(self._borrowed.items()):
            if changed := loan.changed():
                encoder = wire.Encoder(self.side, loan.containers)
                self._send(["fill", number, [[k, encoder.content(loan.containers[k], 1)] for k in changed]])
                for k in changed:
                    loan.settle(k)

    def _fill(self, number: Any, changes: Any) -> None:
        """Do the same to what was lent, unless it was changed here as well."""
        loan = self._lent.get(number) if type(number) is int else None
        if loan is None:
            return
        changed = loan.changed()
        for k, content in changes:
            if type(k) is not int or not 0 <= k < len(loan.containers):
                raise wire.WireError("a change to what was never lent")
            if k not in changed:
                wire.Decoder(self.side, loan.containers).fill(loan.containers[k], content, 0)
                loan.settle(k)

    def _send(self, message: object) -> None:
        try:
            wire.write_frame(self.descriptor, message, self.limit)
        except OSError as error:
            self.gone = True
            raise Gone(f"nobody listens: {error}") from error

    def _receive(self) -> list[Any]:
        with self._sense():
            message = wire.read_frame(self.descriptor, self.limit)
            if not isinstance(message, list) or not message:
                raise wire.WireError("not a message")
        return message  # pyright: ignore[reportPossiblyUnboundVariable]

    def _sense(self) -> "_Sense":
        return _Sense(self)


def keeps(action: str, arguments: Sequence[Any]) -> bool:
    """Whether an object or the module goes on keeping what this asks for: an attribute, an item, a global."""
    return action in ("get", "global") or (action == "special" and arguments[1] == "__getitem__")


def _keep(loans: dict[int, Loan], number: int, loan: Loan) -> None:
    loans[number] = loan
    while len(loans) > MOST_LOANS:
        del loans[next(iter(loans))]


class _Sense(contextlib.AbstractContextManager[None]):
    """What comes off the wire makes sense, or the conversation is over."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        senseless = (wire.WireError, EOFError, OSError, TypeError, ValueError, LookupError, RecursionError, MemoryError)
        if isinstance(error, Gone):
            self.peer.gone = True
        elif isinstance(error, senseless):
            self.peer.gone = True
            raise Gone(f"{type(error).__name__}: {error}") from error
