"""The versions of one model: found, loaded, switched to, drained, freed.

    START -> LOADING -> AVAILABLE -> UNLOADING -> END
                     \\-> END with an error

A new version is loaded whole before requests go to it. The one it replaces takes no more requests from then on, ends
those it has, and is freed with the last of them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from savedmodels.server.config import ModelConfig
from savedmodels.server.errors import ServingError, graph_message
from savedmodels.server.folders import Fingerprint, fingerprint, missing_parts, refuse_files, version_folders
from savedmodels.server.loading import Load, LoadedModel, LoadLimits
from savedmodels.server.metrics import Metrics
from tfdlrm.checks import quoted

logger = logging.getLogger("tfdlrm.serve")

START, LOADING, AVAILABLE, UNLOADING, END = "START", "LOADING", "AVAILABLE", "UNLOADING", "END"
MAX_ENDED = 100  # versions whose end is remembered
_CODES = {"DataLossError": "DATA_LOSS", "TimeoutError": "DEADLINE_EXCEEDED"}  # by the error's name


@dataclass(eq=False)
class Version:
    """A version and what has become of it.

    Args:
        number: name of its folder.
        folder: where it was found.
        state: of those above.
        error_code, error_message: why it ended, or a remark on one that serves.
        model: while it is in memory.
        num_requests: that hold it.
        is_removed: its folder is gone; it is served from memory.
        files: of a version that could not be loaded, when that was tried.
    """

    number: int
    folder: Path
    state: str = START
    error_code: str = "OK"
    error_message: str = ""
    model: LoadedModel | None = None
    num_requests: int = 0
    is_removed: bool = False
    files: Fingerprint | None = None


@dataclass(frozen=True)
class Lease:
    """A version held in memory for one request.

    Args:
        number, model: of the version.
        release: gives it back; to be called once.
        share: gives another lease of the same version, whatever has become of it.
    """

    number: int
    model: LoadedModel
    release: Callable[[], None] = field(repr=False)
    share: Callable[[], Lease] = field(repr=False)


class ServedModel:
    """One model's versions.

    Only one thread at a time may call `update`; all else may be called from any.

    Args:
        config: what to serve.
        metrics: told of every change.
        wake: called when a drained version waits to be freed.
        limits: of a version's load.
        before: what served under this name from another folder; it answers until a version of this one can.
    """

    def __init__(
        self,
        config: ModelConfig,
        metrics: Metrics,
        wake: Callable[[], None],
        limits: LoadLimits | None = None,
        before: ServedModel | None = None,
    ) -> None:
        self.config = config
        self._before = before
        self._limits = limits or LoadLimits()
        self.labels: Mapping[str, int] = {}
        self._awaits_labels = True  # until a reload sets them: those of the config, as their versions come
        self._metrics = metrics
        self._wake = wake
        self._lock = threading.Lock()
        self._versions: dict[int, Version] = {}
        self._waiting: dict[int, list[str]] = {}  # versions that lack files -> which

    # ---- requests

    def lease(self, number: int | None = None, label: str = "") -> Lease:
        """A version for a request: by number, by label, or the newest that is available.

        Raises:
            ServingError: NOT_FOUND; UNAVAILABLE while the first version loads.
        """
        before = self._before
        if before is not None and not self._has_taken_over:
            try:
                return before.lease(number, label)
            except ServingError:
                if not self._has_taken_over:  # in the meantime
                    raise
        with self._lock:
            if label:
                if label not in self.labels:
                    known = ", ".join(sorted(self.labels)) or "none"
                    raise ServingError(
                        "NOT_FOUND",
                        f"model {quoted(self.config.name)} has no version label "
                        f"{quoted(label[:100])}. Its labels: {known}.",
                    )
                number = self.labels[label]
            available = self._available()
            if number is None:
                number = max(available, default=None)
                if number is None:
                    raise self._none_available()
            elif number not in available:
                raise ServingError(
                    "NOT_FOUND",
                    f"version {number} of model {quoted(self.config.name)} is not available. Available: "
                    f"{', '.join(map(str, available)) or 'none'}.",
                )
            return self._lease_of(self._versions[number])

    def _lease_of(self, version: Version) -> Lease:
        """Under the lock."""
        assert version.model is not None
        version.num_requests += 1

        def share() -> Lease:
            with self._lock:
                return self._lease_of(version)

        def release() -> None:
            with self._lock:
                version.num_requests -= 1
                is_drained = version.state == UNLOADING and version.num_requests == 0
            if is_drained:
                self._wake()

        return Lease(version.number, version.model, release, share)

    def _available(self) -> list[int]:
        return sorted(number for number, version in self._versions.items() if version.state == AVAILABLE)

    def _none_available(self) -> ServingError:
        loading = [number for number, version in self._versions.items() if version.state in (START, LOADING)]
        if loading:
            return ServingError("UNAVAILABLE", f"model {quoted(self.config.name)} is loading version {max(loading)}.")
        failed = [version for version in self._versions.values() if version.error_code != "OK"]
        why = f" Version {failed[-1].number}: {failed[-1].error_message}" if failed else ""
        return ServingError("NOT_FOUND", f"model {quoted(self.config.name)} has no version to serve.{why}")

    # ---- status

    @property
    def is_ready(self) -> bool:
        """Whether a version is available, be it of the folder before."""
        return self._has_taken_over or (self._before is not None and self._before.is_ready)

    @property
    def _has_taken_over(self) -> bool:
        with self._lock:
            return bool(self._available())

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in memory any more."""
        with self._lock:
            return all(version.state == END for version in self._versions.values())

    def statuses(self) -> list[Version]:
        """Every version there is or was, newest first.

        While the folder before serves on, its versions are among them, with a remark why.
        """
        with self._lock:
            found = dict(self._versions)
        before = self._before
        if before is not None and not self._has_taken_over:
            remark = f"{before.config.base_path} serves on: {self.unavailable()}"
            for version in before.statuses():
                if version.state == AVAILABLE:
                    found[version.number] = replace(version, error_message=remark)
                else:
                    found.setdefault(version.number, version)
        return sorted(found.values(), key=lambda version: -version.number)

    def unavailable(self) -> str:
        """Why no version can be asked, in TensorFlow Serving's form."""
        with self._lock:
            failed = [version for version in self._versions.values() if version.error_code != "OK"]
            if not failed:
                waiting = "; ".join(f"version {n} lacks {', '.join(parts)}" for n, parts in self._waiting.items())
                return f"{{name: {self.config.name}}} due to error: {waiting or 'no version is there'}"
            newest = max(failed, key=lambda version: version.number)
            return (
                f"{{name: {self.config.name} version: {newest.number}}} due to error: {newest.error_code}: "
                f"{newest.error_message}"
            )

    def replaced(self) -> tuple[ServedModel | None, list[ServedModel]]:
        """For a model of the same name in another folder: who serves until that one can, and who need not any more."""
        # it keeps what was before it: a request may have found this one and not yet its version
        before = self._before
        if self._has_taken_over:
            return self, [] if before is None else [before]
        return before, [self]

    def retire_before(self) -> ServedModel | None:
        """What served before, once a version of this folder can; None where it serves on, or there is none."""
        if self._before is None or not self._has_taken_over:
            return None
        before, self._before = self._before, None
        return before

    def set_labels(self, labels: Mapping[str, int]) -> None:
        """Replaces all labels; `missing_labels` was asked before."""
        with self._lock:
            self.labels, self._awaits_labels = dict(labels), False

    def missing_labels(self, labels: Mapping[str, int]) -> list[str]:
        """Labels of versions that are not available."""
        with self._lock:
            available = set(self._available())
            return [f"{label} -> {number}" for label, number in labels.items() if number not in available]

    # ---- folders

    def update(self, *, is_dropped: bool = False) -> int:
        """Looks at the folder and does what follows from it.

        Args:
            is_dropped: the model is no longer served: unload everything.

        Returns:
            How many versions were given up; the caller frees their memory.
        """
        while not is_dropped and (number := self._next_to_load()) is not None:
            self._load(self._versions[number])
        with self._lock:
            wanted = set() if is_dropped else self._wanted()
            available = set(self._available())
            # a version that is gone from the config serves on until another one can
            if is_dropped or wanted & available or not wanted:
                for number in available - wanted:
                    self._set_state(self._versions[number], UNLOADING)
            drained = [v for v in self._versions.values() if v.state == UNLOADING and v.num_requests == 0]
            num_given_up = 0
            for version in drained:
                if version.model is not None:
                    num_given_up += 1
                version.model = None
                self._set_state(version, END)
            ended = sorted(number for number, version in self._versions.items() if version.state == END)
            for number in ended[:-MAX_ENDED]:
                del self._versions[number]
        return num_given_up

    def _next_to_load(self) -> int | None:
        """The newest version that should be in memory and is not."""
        folders = version_folders(self.config.base_path)
        self._mark_removed(set(folders))
        loadable = {}
        for number, folder in folders.items():
            version = self._versions.get(number)
            if version is None or version.state in (START, END):
                missing = missing_parts(folder)
                self._note_waiting(number, missing)
                if not missing and (version is None or self._is_worth_another_try(version)):
                    loadable[number] = folder
        for number in set(self._waiting) - set(folders):
            del self._waiting[number]
        with self._lock:
            to_load = self._wanted(loadable) & set(loadable)
            for number in to_load:
                self._versions[number] = Version(number, loadable[number])
                self._set_state(self._versions[number], START)
            # what an earlier look began to list and this one does not want any more
            for number in [n for n, v in self._versions.items() if v.state == START and n not in to_load]:
                self._set_state(self._versions.pop(number), END)
        return max(to_load, default=None)

    def _wanted(self, loadable: Iterable[int] = ()) -> set[int]:
        """Versions to serve, of those in memory and those that can be loaded. Under the lock."""
        in_memory = {number for number, version in self._versions.items() if version.state == AVAILABLE}
        return self.config.wanted(in_memory | set(loadable))

    @staticmethod
    def _is_worth_another_try(version: Version) -> bool:
        """An unloaded version may be asked for again; a broken one once its files are others."""
        return version.files is None or version.files != fingerprint(version.folder)

    def _mark_removed(self, there: set[int]) -> None:
        with self._lock:
            for number, version in self._versions.items():
                is_removed = version.state == AVAILABLE and number not in there
                if is_removed != version.is_removed and version.state == AVAILABLE:
                    version.is_removed = is_removed
                    version.error_message = "its folder is gone; it is served from memory" if is_removed else ""
                    logger.warning(
                        "model %s version %d: its folder is %s",
                        self.config.name,
                        number,
                        "gone; it is served from memory" if is_removed else "back",
                    )

    def _note_waiting(self, number: int, missing: list[str]) -> None:
        if missing and self._waiting.get(number) != missing:
            logger.info("model %s version %d is not whole yet: no %s", self.config.name, number, ", ".join(missing))
            self._waiting[number] = missing
        elif not missing:
            self._waiting.pop(number, None)

    def _load(self, version: Version) -> None:
        files = fingerprint(version.folder)
        with self._lock:
            self._set_state(version, LOADING)
        try:
            refuse_files(version.folder, self._limits.max_bytes)
            model = Load(version.folder).result(self._limits)
        except Exception as error:
            logger.error("model %s version %d cannot be loaded", self.config.name, version.number, exc_info=True)
            with self._lock:
                version.files = files
                version.error_code = _CODES.get(type(error).__name__, "UNKNOWN")
                version.error_message = f"{version.folder} cannot be loaded: {graph_message(error)}"
                self._set_state(version, END)
        else:
            with self._lock:
                version.model = model
                self._set_state(version, AVAILABLE)
                if self._awaits_labels:
                    # with the version itself: a request by label finds it from its first moment on
                    named = {label: n for label, n in self.config.labels.items() if n == version.number}
                    self.labels = {**self.labels, **named}
        self._metrics.load(self.config.name, succeeded=version.state == AVAILABLE)

    def _set_state(self, version: Version, state: str) -> None:
        if state != version.state:
            logger.info("model %s version %d: %s", self.config.name, version.number, state)
        version.state = state
        num_bytes = version.model.num_bytes if version.model is not None else 0
        self._metrics.version(self.config.name, version.number, state, num_bytes)

    @contextmanager
    def leased(self, number: int | None = None, label: str = "") -> Iterator[Lease]:
        """`lease` for the time of a block."""
        lease = self.lease(number, label)
        try:
            yield lease
        finally:
            lease.release()
