"""`tfdlrm serve` and `tfdlrm query`, announced by entry points in setup.cfg."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tfdlrm.checks import quoted

if TYPE_CHECKING:
    from savedmodels.client import Client
    from savedmodels.client.base import Arrays
    from savedmodels.client.rows import Numbered
    from savedmodels.server.config import ModelConfig

DEFAULT_MODEL = "default"  # TensorFlow Serving's
EXIT_USAGE = 2


def add_serve(commands: Any) -> None:
    """Adds `serve`."""
    from savedmodels.server.options import ServerOptions

    parser = commands.add_parser(
        "serve",
        help="serve SavedModels locally, for development and tests",
        description="Serve SavedModels over TensorFlow Serving's gRPC and REST interfaces, for development and tests. "
        "This is not TensorFlow Serving: it is one Python process without authentication. New versions in the folders "
        "are picked up; old ones are unloaded after their last request.",
    )
    parser.add_argument("directory", nargs="?", metavar="DIR", help="folder of a model's numbered versions")
    parser.add_argument("--name", default=DEFAULT_MODEL, help=f"name of the model in DIR (default: {DEFAULT_MODEL})")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=DIR", help="one more model")
    parser.add_argument(
        "--model-config",
        metavar="FILE",
        help="models, version policies and labels, as TensorFlow Serving's config file",
    )
    add = parser.add_argument
    add("--host", default=ServerOptions.host, help="default: %(default)s")
    add("--allow-any-address", action="store_true", help="let --host be reached from other machines")
    add("--grpc-port", type=int, default=ServerOptions.grpc_port, metavar="PORT", help="default: %(default)s; 0: any")
    add("--rest-port", type=int, default=ServerOptions.rest_port, metavar="PORT", help="default: %(default)s; 0: any")
    add("--max-message-bytes", type=int, default=ServerOptions.max_message_bytes, metavar="N", help="of a request")
    add("--max-rows", type=int, default=ServerOptions.max_rows, metavar="N", help="of a request (default: %(default)s)")
    add("--request-seconds", type=float, default=ServerOptions.request_seconds, metavar="S", help="longest answer")
    add("--max-in-flight", type=int, default=ServerOptions.max_in_flight, metavar="N", help="requests at once")
    add("--num-threads", type=int, default=ServerOptions.num_threads, metavar="N", help="that call models at once")
    add("--max-batch-rows", type=int, metavar="N", help="put requests together to batches of so many rows")
    add(
        "--max-batch-wait-microseconds",
        type=int,
        default=ServerOptions.max_batch_wait_microseconds,
        metavar="N",
        help="a request waits so long for others (default: %(default)s)",
    )
    add("--poll-seconds", type=float, default=ServerOptions.poll_seconds, metavar="S", help="between looks at folders")
    add("--load-seconds", type=float, default=ServerOptions.load_seconds, metavar="S", help="longest load of a version")
    add("--max-version-bytes", type=int, metavar="N", help="of a version's files (default: the machine's memory)")
    add("--drain-seconds", type=float, default=ServerOptions.drain_seconds, metavar="S", help="for running requests")
    add("--enable-cors-support", action="store_true", help="let web pages of any origin ask over REST")
    parser.set_defaults(run=_serve)


def add_query(commands: Any) -> None:
    """Adds `query`."""
    parser = commands.add_parser(
        "query",
        help="ask a model server about the rows of a file",
        description="Ask TensorFlow Serving, or `tfdlrm serve`, about the rows of a file of JSON lines or CSV, and "
        "write a line of outputs for each row. Rows are columns of the signature; for a signature of serialized "
        "Examples they are the raw columns. With --schema the rows are any file that `tfdlrm predict` reads.",
    )
    parser.add_argument("address", metavar="ADDRESS", help="HOST:PORT, or http://HOST:PORT for REST")
    parser.add_argument("file", metavar="FILE", help="rows as .jsonl or .csv; - for stdin; with --schema: raw rows")
    parser.add_argument(
        "--schema",
        metavar="PATH",
        help="read FILE as `tfdlrm predict` does, by the schema of this export, run or schema.yaml",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME", help="default: %(default)s")
    interface = parser.add_mutually_exclusive_group()
    interface.add_argument("--grpc", action="store_true", help="speak gRPC (default for HOST:PORT)")
    interface.add_argument("--rest", action="store_true", help="speak REST (default for http://HOST:PORT)")
    parser.add_argument("--signature", default="serving_default", metavar="NAME", help="default: %(default)s")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, metavar="N", help="default: the newest")
    which.add_argument("--label", default="", metavar="LABEL", help="of a version")
    parser.add_argument("--format", choices=("jsonl", "csv"), help="of FILE (default: by its name; stdin: jsonl)")
    parser.add_argument("--output", default="-", metavar="FILE", help="default: stdout; .csv for CSV, else JSON lines")
    parser.add_argument("--max-rows", type=int, default=1000, metavar="N", help="of a request (default: %(default)s)")
    parser.add_argument("--timeout-seconds", type=float, default=30.0, metavar="S", help="of a request")
    parser.set_defaults(run=_query, needs_tensorflow=False)


def _serve(arguments: argparse.Namespace) -> int:
    from savedmodels.server.options import ServerOptions

    names = (name for name in ServerOptions.__dataclass_fields__ if hasattr(arguments, name))
    options = ServerOptions(**{name: getattr(arguments, name) for name in names})
    configs = _configs(arguments)
    _require("prometheus_client", "grpc", "aiohttp")
    from savedmodels.server.program import run

    return run(configs, options)


def _configs(arguments: argparse.Namespace) -> list[ModelConfig]:
    from savedmodels.server.config import ModelConfig, read_config

    configs = []
    if arguments.directory is not None:
        configs.append(ModelConfig(name=arguments.name, base_path=Path(arguments.directory)))
    for text in arguments.model:
        name, separator, folder = text.partition("=")
        if not (separator and name and folder):
            raise ValueError(f"--model {text}: NAME=DIR is expected.")
        configs.append(ModelConfig(name=name, base_path=Path(folder)))
    if arguments.model_config:
        configs += read_config(arguments.model_config)
    names = [config.name for config in configs]
    if not names:
        raise ValueError("There is no model to serve. Give DIR, --model NAME=DIR or --model-config FILE.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"model {quoted(twice)} is given twice. Name the model in DIR with --name.")
    return configs


def _require(*packages: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ImportError(f'Not installed: {", ".join(missing)}. Install: pip install "tfdlrm[serving]"')


def _query(arguments: argparse.Namespace) -> int:
    from savedmodels.client.errors import ClientError
    from savedmodels.client.rows import CSV, JSONL, RowWriter, chunks

    is_raw = arguments.schema is not None
    if is_raw and (arguments.file == "-" or arguments.format is not None):
        raise ValueError("--schema tells how a file is read. Give FILE, and leave --format out.")
    source = "stdin" if arguments.file == "-" else arguments.file
    form = arguments.format or (CSV if arguments.file.endswith(".csv") and not is_raw else JSONL)
    output_form = CSV if arguments.output.endswith(".csv") or (arguments.output == "-" and form == CSV) else JSONL
    num_rows = 0
    try:
        with (
            _client(arguments) as client,
            _rows(arguments, client, form, source) as rows,
            _opened(arguments.output, "w", sys.stdout) as stream,
        ):
            writer = RowWriter(stream, output_form)
            for chunk in chunks(rows, arguments.max_rows):
                writer.write(_answers(client, arguments, chunk, form, source), len(chunk))
                num_rows += len(chunk)
    except ClientError as error:
        print(f"tfdlrm: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(f"{num_rows:,} rows answered", file=sys.stderr)
    return 0


@contextmanager
def _rows(arguments: argparse.Namespace, client: Client, form: str, source: str) -> Iterator[Iterator[Numbered]]:
    """Rows of the signature's columns or, with a schema, of a raw file."""
    if arguments.schema is None:
        from savedmodels.client.rows import read_rows

        with _opened(arguments.file, "r", sys.stdin) as lines:
            yield read_rows(lines, form, source)
        return
    from savedmodels.client.raw_files import check_signature, find_schema, read_raw_file

    spec = client.signature(arguments.signature, version=arguments.version, label=arguments.label)
    check_signature(spec.takes_examples, arguments.signature)
    yield read_raw_file(arguments.file, find_schema(arguments.schema))


def _client(arguments: argparse.Namespace) -> Client:
    from savedmodels.client import GrpcClient, RestClient

    is_rest = arguments.rest or "://" in arguments.address
    if is_rest and arguments.grpc:
        raise ValueError(f"--grpc: {arguments.address} is an address of REST. Give HOST:PORT.")
    kind = RestClient if is_rest else GrpcClient
    return kind(
        arguments.address,
        arguments.model,
        max_rows=arguments.max_rows,
        timeout_seconds=arguments.timeout_seconds,
    )


@contextmanager
def _opened(name: str, mode: str, standard: IO[str]) -> Iterator[IO[str]]:
    if name == "-":
        yield standard
    elif mode == "r":
        with open(name, encoding="utf-8", newline="") as stream:
            yield stream
    else:
        with ExitStack() as files:
            written = _Written(name, files)
            yield written  # type: ignore[misc]  # it has what a RowWriter needs
            written.write("")


class _Written:
    """A file that is made when something is written: what was there stays where nothing is answered."""

    def __init__(self, name: str, files: ExitStack) -> None:
        self._name, self._files = name, files
        self._stream: IO[str] | None = None

    def write(self, text: str) -> int:
        """See `IO`."""
        if self._stream is None:
            stream = Path(self._name).open("w", encoding="utf-8", newline="")  # noqa: SIM115
            self._stream = self._files.enter_context(stream)
        return self._stream.write(text)

    def flush(self) -> None:
        """See `IO`."""
        if self._stream is not None:
            self._stream.flush()


def _answers(
    client: Client, arguments: argparse.Namespace, chunk: Sequence[Numbered], form: str, source: str
) -> Arrays:
    """Outputs of some rows; where they are refused, the error names the line."""
    from savedmodels.client.errors import InvalidRequestError
    from savedmodels.client.rows import blame

    def ask(rows: Sequence[Numbered]) -> Arrays:
        return _ask(client, arguments, [row for _, row in rows], form)

    def is_good(rows: Sequence[Numbered]) -> bool:
        try:
            ask(rows)
        except InvalidRequestError:
            return False
        return True

    try:
        return ask(chunk)
    except InvalidRequestError as error:
        line = blame(error, chunk, is_good)
        if line is None:
            raise
        try:
            ask([numbered for numbered in chunk if numbered[0] == line])
        except InvalidRequestError as own:
            raise InvalidRequestError(f"{source}:{line}: {own}") from error
        raise


def _ask(client: Client, arguments: argparse.Namespace, rows: list[dict[str, Any]], form: str) -> Arrays:
    from savedmodels.client.rows import CSV, is_of_examples, rows_to_inputs, typed_columns

    which = {"signature": arguments.signature, "version": arguments.version, "label": arguments.label}
    spec = client.signature(arguments.signature, version=arguments.version, label=arguments.label)
    if is_of_examples(spec, rows[0]):
        return client.predict_examples(typed_columns(rows) if form == CSV else rows, **which)
    return client.predict(rows_to_inputs(spec, rows, from_text=form == CSV), **which)
