"""What both clients do: fit inputs to the signature, cut large requests, keep one version, retry, join."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from savedmodels.client.errors import InvalidRequestError, NotFoundError, ServerError
from savedmodels.client.retries import Result, RetryPolicy
from savedmodels.wire.arrays import InputError, to_array
from savedmodels.wire.batches import check_arrays, check_names, cut, join
from savedmodels.wire.signatures import DEFAULT_SIGNATURE, RANK_SIGNATURE, SignatureSpec
from tfdlrm.checks import quoted

Arrays = dict[str, np.ndarray]

# Below this server's limit of 50,000, and a few MB of numbers a message.
DEFAULT_MAX_ROWS = 10_000
NO_LIMIT = 2**62
MAX_RESTARTS = 3


@dataclass(frozen=True, kw_only=True)
class VersionStatus:
    """A version as the server has it.

    Args:
        version: its number.
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        error_code, error_message: OK and empty where nothing is to be said.
    """

    version: int
    state: str
    error_code: str
    error_message: str


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """A version's signatures.

    Args:
        model, version: whose.
        signatures: that can be asked, by name.
        refusals: why others cannot, by name.
    """

    model: str
    version: int
    signatures: Mapping[str, SignatureSpec]
    refusals: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which version of a model; None and empty for the newest."""

    version: int | None = None
    label: str = ""


class Client(ABC):
    """A client of one model.

    Args:
        address: `HOST:PORT`.
        model: its name on the server.
        timeout_seconds: of a call, retries and all parts of it included.
        max_rows: larger requests are sent in parts of so many rows, all to one version, and joined.
        retry: when the server is not available.

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(
        self,
        address: str,
        model: str = "default",
        *,
        timeout_seconds: float = 30.0,
        max_rows: int = DEFAULT_MAX_ROWS,
        retry: RetryPolicy | None = None,
    ) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows={max_rows} is not possible. Give 1 or more.")
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds={timeout_seconds} is not possible. Give more than 0.")
        self.address = address
        self.model = model
        self._timeout_seconds = timeout_seconds
        self._max_rows = max_rows
        self._retry = retry or RetryPolicy()
        self._known: dict[Asked, ModelMetadata] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Closes connections."""

    # ---- what can be asked

    def predict(
        self,
        inputs: Mapping[str, Any],
        *,
        signature: str = DEFAULT_SIGNATURE,
        version: int | None = None,
        label: str = "",
        timeout_seconds: float | None = None,
    ) -> Arrays:
        """Runs a signature.

        Args:
            inputs: name -> array or nested lists, batch first. Bags of varying length are `<name>`, all values one
                after another, and `<name>_row_lengths`.
            signature: its name.
            version, label: which version, by number or label; the newest where neither is given.
            timeout_seconds: default: the client's.

        Returns:
            Name -> array. Strings are bytes, in arrays of dtype object.

        Raises:
            InvalidRequestError: an input does not fit the signature; the message names it.
            NotFoundError: no such model, version or label.
            DeadlineError: no answer in time.
            UnavailableError: no server, after retries.
            ServerError: the server or the model failed.

        Example:
            >>> client.predict({"dense": [[0.5, 1.0]], "item": [7]}, signature="predict")["probability"]
            array([[0.31]], dtype=float32)
        """
        if version is not None and label:
            raise InvalidRequestError(f"Give version={version} or label={quoted(label)}, not both.")
        deadline = self._deadline(timeout_seconds)
        asked = Asked(version=version, label=label)
        spec, is_fresh = self._signature(signature, asked, deadline)
        try:
            return self._predict(spec, inputs, asked, deadline)
        except InvalidRequestError:
            # a newer version may have other signatures than the one that was looked at
            fresh = spec if is_fresh else self._fetch(asked, deadline).signatures.get(signature)
            if fresh is None or fresh == spec:
                raise
            return self._predict(fresh, inputs, asked, deadline)

    def predict_examples(
        self,
        examples: Iterable[Mapping[str, Any] | bytes],
        *,
        signature: str = DEFAULT_SIGNATURE,
        version: int | None = None,
        label: str = "",
        timeout_seconds: float | None = None,
    ) -> Arrays:
        """Runs a signature of serialized tf.train.Examples.

        Args:
            examples: rows: column -> value or list of values (see `wire.examples`), or an Example that is serialized.
            signature: one whose only input is string [B].

        Raises:
            As `predict`.

        Example:
            >>> client.predict_examples([{"item": 7, "price": 1.5}])["probability"]
            array([[0.31]], dtype=float32)
        """
        deadline = self._deadline(timeout_seconds)
        spec, _ = self._signature(signature, Asked(version=version, label=label), deadline)
        if not spec.takes_examples:
            raise InvalidRequestError(
                f"signature {quoted(signature)} takes {', '.join(spec.inputs)}, not serialized Examples. Use predict."
            )
        serialized = [row if isinstance(row, bytes) else _serialized(n, row) for n, row in enumerate(examples)]
        return self.predict(
            {next(iter(spec.inputs)): serialized},
            signature=signature,
            version=version,
            label=label,
            timeout_seconds=deadline - time.monotonic(),
        )

    def rank(
        self,
        inputs: Mapping[str, Any],
        k: int,
        *,
        signature: str = RANK_SIGNATURE,
        version: int | None = None,
        label: str = "",
        timeout_seconds: float | None = None,
    ) -> Arrays:
        """The best candidates of one user; never sent in parts.

        Args:
            inputs: `[1, ..]` for the user's, `[N, ..]` for the candidates'.
            k: how many.

        Returns:
            The signature's outputs, with `top_index` and `top_probability` [k] among them.

        Raises:
            As `predict`.
        """
        return self.predict(
            {**inputs, "k": k}, signature=signature, version=version, label=label, timeout_seconds=timeout_seconds
        )

    def status(self, *, version: int | None = None, timeout_seconds: float | None = None) -> list[VersionStatus]:
        """The versions of the model, newest first, or one of them.

        Raises:
            NotFoundError, DeadlineError, UnavailableError, ServerError: as `predict`.
        """
        asked = Asked(version=version)
        statuses = self._call(lambda left: self._send_status(asked, left), self._deadline(timeout_seconds))
        return sorted(statuses, key=lambda status: -status.version)

    def metadata(
        self, *, version: int | None = None, label: str = "", timeout_seconds: float | None = None
    ) -> ModelMetadata:
        """The version that answers, and its signatures.

        Raises:
            NotFoundError, DeadlineError, UnavailableError, ServerError: as `predict`.
        """
        return self._fetch(Asked(version=version, label=label), self._deadline(timeout_seconds))

    def signature(
        self, name: str, *, version: int | None = None, label: str = "", timeout_seconds: float | None = None
    ) -> SignatureSpec:
        """A signature by name, as the client last heard of it.

        Raises:
            InvalidRequestError: it is not there; the message lists those that are.
            NotFoundError, DeadlineError, UnavailableError, ServerError: as `predict`.
        """
        return self._signature(name, Asked(version=version, label=label), self._deadline(timeout_seconds))[0]

    # ---- how

    @abstractmethod
    def _send_predict(self, spec: SignatureSpec, arrays: Arrays, asked: Asked, timeout_seconds: float) -> Arrays: ...

    @abstractmethod
    def _send_status(self, asked: Asked, timeout_seconds: float) -> list[VersionStatus]: ...

    @abstractmethod
    def _send_metadata(self, asked: Asked, timeout_seconds: float) -> ModelMetadata: ...

    def _deadline(self, timeout_seconds: float | None) -> float:
        return time.monotonic() + (self._timeout_seconds if timeout_seconds is None else timeout_seconds)

    def _call(self, ask: Callable[[float], Result], deadline: float) -> Result:
        return self._retry.call(ask, deadline)

    def _fetch(self, asked: Asked, deadline: float) -> ModelMetadata:
        metadata = self._call(lambda left: self._send_metadata(asked, left), deadline)
        self._known[asked] = metadata
        return metadata

    def _signature(self, name: str, asked: Asked, deadline: float) -> tuple[SignatureSpec, bool]:
        """A signature, and whether it was asked for just now."""
        known = self._known.get(asked)
        if known is not None and name in known.signatures:
            return known.signatures[name], False
        fresh = self._fetch(asked, deadline)
        if name in fresh.refusals:
            raise InvalidRequestError(f"signature {quoted(name)}: {fresh.refusals[name]}")
        if name not in fresh.signatures:
            raise InvalidRequestError(
                f"signature {quoted(name)} is not in version {fresh.version} of model {quoted(self.model)}. It has: "
                f"{', '.join(sorted(fresh.signatures))}."
            )
        return fresh.signatures[name], True

    def _predict(self, spec: SignatureSpec, inputs: Mapping[str, Any], asked: Asked, deadline: float) -> Arrays:
        try:
            check_names(spec, list(inputs))
            arrays = {name: to_array(spec.inputs[name], value) for name, value in inputs.items()}
            num_rows = check_arrays(spec, arrays, NO_LIMIT)
        except InputError as error:
            raise InvalidRequestError(str(error)) from error
        if num_rows <= self._max_rows or not spec.is_batch_first:
            return self._call(lambda left: self._send_predict(spec, arrays, asked, left), deadline)
        return self._in_parts(spec, arrays, asked, deadline)

    def _in_parts(self, spec: SignatureSpec, arrays: Arrays, asked: Asked, deadline: float) -> Arrays:
        """All parts from one version: if it is unloaded between two of them, they are all asked again."""
        for restart in range(MAX_RESTARTS + 1):
            pinned = asked if asked.version is not None else Asked(version=self._fetch(asked, deadline).version)
            answers = []
            try:
                for part in cut(spec, arrays, self._max_rows):
                    answers.append(self._one_part(spec, part, pinned, deadline))
                return join(answers)
            except NotFoundError:
                if pinned is asked or restart == MAX_RESTARTS:
                    raise
        raise AssertionError("the last restart returns or raises")

    def _one_part(self, spec: SignatureSpec, part: Arrays, pinned: Asked, deadline: float) -> Arrays:
        return self._call(lambda left: self._send_predict(spec, part, pinned, left), deadline)


def _serialized(number: int, row: Mapping[str, Any]) -> bytes:
    from savedmodels.wire.examples import serialize_example

    try:
        return serialize_example(row)
    except InputError as error:
        raise InvalidRequestError(f"row {number}: {error}") from error


def check_outputs(spec: SignatureSpec, outputs: Arrays) -> Arrays:
    """Outputs in the signature's order.

    Raises:
        ServerError: another set of outputs than the signature has.
    """
    if set(outputs) != set(spec.outputs):
        raise ServerError(
            f"signature {quoted(spec.name)}: the server answered {sorted(outputs)}, not {sorted(spec.outputs)}."
        )
    return {name: outputs[name] for name in spec.outputs}
