"""One model over HTTP, as the OpenAI API has it: mlx-lm's server, told never to load anything else.

mlx-lm's own server loads whatever model a request names, and without its adapter. Here every request is answered by
the model that was given, whatever name it uses, and `/v1/models` lists that one.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import signal
import socket
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from pipelines import backend
from pipelines.config import ExperimentConfig
from pipelines.errors import ConfigError, GrpoError, ModelError
from pipelines.evaluation.targets import Target

if TYPE_CHECKING:
    from mlx_lm.server import ResponseGenerator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """Where to listen, and what holds for requests that do not say."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0: a free one."""
    temperature: float = 0.0
    max_tokens: int = 512


def run(config: ExperimentConfig, request: Request, *, target: Target, ready: Callable[[str], object]) -> None:
    """Answer until SIGINT or SIGTERM. `ready(url)` is called when requests are answered.

    ConfigError where the address cannot be had; it is taken before the model is loaded.
    """
    with _ended_by_signals(), _heard(), _bound(request) as server:
        loading: Future[None] = Future()
        generator = _generator(config, target, request, loading)
        try:
            loading.result()
            server.RequestHandlerClass = _handler(generator)
            server.server_activate()
            ready(server.url)
            server.serve_forever()
        except KeyboardInterrupt:
            log.info("stopped")
        finally:
            generator.stop_and_join()


class _Server(ThreadingHTTPServer):
    """A server that has its port once it is bound, and listens when it is activated."""

    def __init__(self, address: tuple[Any, ...], family: socket.AddressFamily) -> None:
        self.address_family = family
        super().__init__(address, BaseHTTPRequestHandler, bind_and_activate=False)

    @property
    def url(self) -> str:
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base's signature
        """A client that went away, mostly; a line instead of a traceback."""
        log.warning("%s: %r", client_address[0], sys.exc_info()[1])


def _bound(request: Request) -> _Server:
    """ConfigError for an address that is not this machine's, and for a port that is taken."""
    try:
        found = socket.getaddrinfo(request.host, request.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigError(
            f"--host: {request.host}: {error.strerror}", hint="give an address of this machine"
        ) from error
    family, _, _, _, address = found[0]
    if not ipaddress.ip_address(address[0]).is_loopback:
        log.warning("whoever can reach %s can use this model: there is no password and no encryption", request.host)
    server = _Server(address, family)
    try:
        server.server_bind()
    except OSError as error:
        server.server_close()
        raise ConfigError(
            f"--host, --port: {address[0]} port {address[1]} cannot be had: {error.strerror}",
            hint="if another program has it: --port 0 finds a free one",
        ) from error
    return server


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Inside the block SIGINT and SIGTERM raise KeyboardInterrupt, even where a shell had them ignored."""
    earlier = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def _heard() -> Iterator[None]:
    """Inside the block what mlx-lm logs, which it does without a name, is logged as ours."""

    class Relay(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == "root":
                log.log(record.levelno, "%s", record.getMessage())

    relay = Relay()
    logging.getLogger().addHandler(relay)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(relay)


def _generator(config: ExperimentConfig, target: Target, request: Request, loading: Future[None]) -> ResponseGenerator:
    """mlx-lm's decoding thread with this model in it for good; `loading` tells when it is, or why not.

    The thread itself loads it: MLX binds what is not evaluated yet to the thread that made it.
    """
    import mlx.core as mx
    from mlx_lm.models.cache import LRUPromptCache, make_prompt_cache
    from mlx_lm.server import ModelProvider, ResponseGenerator

    class OneModel(ModelProvider):
        def load_default(self) -> None:
            try:
                backend.prepare(config.trainer.evaluation_seed)
                loaded = target.load(config)
                self.model, self.tokenizer, self.model_key = loaded.model, loaded.tokenizer, (target.name, None, None)
                self.is_batchable = all(hasattr(cache, "merge") for cache in make_prompt_cache(loaded.model))
                loading.set_result(None)
            except GrpoError as error:
                loading.set_exception(error)
            finally:
                if not loading.done():
                    loading.set_exception(ModelError("the model cannot be served", hint="the lines above say why"))

        def load(self, *_: Any, **__: Any) -> Any:
            return self.model, self.tokenizer

    class Decoder(ResponseGenerator):
        def _run_generate(self) -> None:
            super()._run_generate()
            mx.clear_streams()  # else MLX aborts the process at its end, more often than not

    settings = _settings(target.name, request)
    return Decoder(OneModel(settings), LRUPromptCache(settings.prompt_cache_size))


def _handler(generator: ResponseGenerator) -> type[BaseHTTPRequestHandler]:
    """mlx-lm's handler, which lists the one model and logs as we do."""
    from mlx_lm.server import APIHandler

    class Handler(APIHandler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(generator, *args, **kwargs)

        def handle_models_request(self) -> None:
            self._set_completion_headers(200)
            self.end_headers()
            model = {"id": generator.cli_args.model, "object": "model", "created": self.created, "owned_by": "grpo"}
            self.wfile.write(json.dumps({"object": "list", "data": [model]}).encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the standard library
            log.info("%s %s", self.address_string(), format % args)

    return Handler


def _settings(name: str, request: Request) -> Namespace:
    """What mlx-lm's server reads of its command line: its own defaults, but no other web page may ask."""
    return Namespace(
        model=name,
        adapter_path=None,
        draft_model=None,
        num_draft_tokens=3,
        trust_remote_code=False,
        chat_template="",
        use_default_chat_template=False,
        chat_template_args={},
        allowed_origins=(),
        temp=request.temperature,
        max_tokens=request.max_tokens,
        top_p=1.0,
        top_k=0,
        min_p=0.0,
        decode_concurrency=32,
        prompt_concurrency=8,
        prefill_step_size=2048,
        prompt_cache_size=10,
        prompt_cache_bytes=None,
        kv_bits=None,
        kv_group_size=64,
        quantized_kv_start=0,
        pipeline=False,
    )
