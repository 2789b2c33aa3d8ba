"""All models of a server, and the thread that looks after their folders."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from savedmodels.server.config import ModelConfig
from savedmodels.server.errors import ServingError
from savedmodels.server.loading import LoadLimits, free_memory
from savedmodels.server.metrics import Metrics
from savedmodels.server.versions import ServedModel
from tfdlrm.checks import quoted

logger = logging.getLogger("tfdlrm.serve")

NUM_COLLECTIONS = 10  # rounds after a version was given up in which its memory is freed
SETTLE_SECONDS = 0.05  # between two looks while a reload waits for versions to load


class ModelStore:
    """Models by name.

    Args:
        configs: of the models.
        metrics: told of every version.
        poll_seconds: between two looks at the folders.
        load_seconds, max_version_bytes: of a version's load; see `ServerOptions`.
    """

    def __init__(
        self,
        configs: Iterable[ModelConfig],
        metrics: Metrics,
        poll_seconds: float,
        load_seconds: float = LoadLimits.seconds,
        max_version_bytes: int | None = None,
    ) -> None:
        self._metrics = metrics
        self._limits = LoadLimits(
            seconds=load_seconds, max_bytes=max_version_bytes, is_stopped=lambda: self._is_stopped
        )
        self._poll_seconds = poll_seconds
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_stopped = False
        self._num_rounds = 0
        self._round_done = threading.Condition()
        self._reloading = threading.Lock()
        self._models = {config.name: self._served(config) for config in configs}
        self._awaited = set(self._models)  # by `is_ready`
        self._dropped: list[ServedModel] = []
        self._collections_left = 0
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)

    def _served(self, config: ModelConfig, before: ServedModel | None = None) -> ServedModel:
        return ServedModel(config, self._metrics, self._wake.set, self._limits, before)

    def start(self, on_look: Callable[[], None] = lambda: None) -> None:
        """Begins to load, and to look for new versions.

        Args:
            on_look: called after each look at the folders.
        """
        self._on_look = on_look
        self._thread.start()

    def stop(self) -> None:
        """Looks no more; what is in memory stays."""
        self._is_stopped = True
        self._wake.set()
        self._thread.join()

    def model(self, name: str) -> ServedModel:
        """A model by name.

        Raises:
            ServingError: NOT_FOUND; lists those there.
        """
        with self._lock:
            model = self._models.get(name)
            if model is None:
                known = ", ".join(sorted(self._models)) or "none"
                raise ServingError("NOT_FOUND", f"model {quoted(name[:100])} is not served here. Models: {known}.")
            return model

    @property
    def models(self) -> dict[str, ServedModel]:
        """All models, by name."""
        with self._lock:
            return dict(self._models)

    @property
    def is_ready(self) -> bool:
        """Whether every model that the server began with, and is still configured, has a version that is available.

        One that a reload has added does not count: a config that cannot be served takes nobody away who is. Where none
        of the first ones is left, one that is available is enough.
        """
        models = self.models
        awaited = [model for name, model in models.items() if name in self._awaited]
        if awaited:
            return all(model.is_ready for model in awaited)
        return not models or any(model.is_ready for model in models.values())

    def wait_for_round(self, timeout_seconds: float) -> bool:
        """Waits until the folders have been looked at once more, from now on.

        Returns:
            False where the time was not enough.
        """
        with self._round_done:
            target = self._num_rounds + 2  # a round that runs now may have begun before
            self._wake.set()
            deadline = time.monotonic() + timeout_seconds
            while self._num_rounds < target:
                if not self._round_done.wait(min(SETTLE_SECONDS, max(0.0, deadline - time.monotonic()))):
                    self._wake.set()
                if time.monotonic() >= deadline:
                    return self._num_rounds >= target
        return True

    def reload(self, configs: Iterable[ModelConfig], timeout_seconds: float) -> None:
        """Serves other models, policies and labels; a model that is not listed is unloaded.

        A model whose folder is another one answers from the old one until a version of the new one can. Labels of a
        model that stays where it was are set all at once or none; those of others as their versions come.

        Raises:
            ServingError: UNKNOWN, as TensorFlow Serving has it: a new model did not become available;
                FAILED_PRECONDITION: a label's version is not available; DEADLINE_EXCEEDED: loading took longer (it
                goes on); INVALID_ARGUMENT: a model's folder does not exist.
        """
        configs = list(configs)
        for config in configs:
            if not config.base_path.is_dir():
                raise ServingError("INVALID_ARGUMENT", f"model {quoted(config.name)}: {config.base_path} is no folder.")
        with self._reloading:
            with self._lock:
                models, changed = {}, []
                left = dict(self._models)
                for config in configs:
                    model = left.pop(config.name, None)
                    if model is not None and model.config.base_path == config.base_path:
                        model.config = config
                    else:
                        before, dropped = (None, []) if model is None else model.replaced()
                        self._dropped += dropped
                        model = self._served(config, before)
                        changed.append(model)
                    models[config.name] = model
                self._dropped += left.values()
                self._models = models
            if not self.wait_for_round(timeout_seconds):
                raise ServingError("DEADLINE_EXCEEDED", "The models of the new config are still being loaded.")
            broken = [model.unavailable() for model in changed if not model.is_ready]
            if broken:
                # TensorFlow Serving's words, which its clients look for
                listed = ", ".join(f"{{{why}}}" for why in broken)
                raise ServingError("UNKNOWN", f"{len(broken)} model(s) did not become available: {listed}")
            missing = [
                f"{config.name}: {text}"
                for config in configs
                if models[config.name] not in changed
                for text in models[config.name].missing_labels(config.labels)
            ]
            if missing:
                raise ServingError(
                    "FAILED_PRECONDITION",
                    f"Labels can name available versions only; these are not: {', '.join(missing)}. No label was set.",
                )
            for config in configs:
                if models[config.name] not in changed:
                    models[config.name].set_labels(config.labels)

    def _watch(self) -> None:
        while not self._is_stopped:
            self._wake.clear()
            try:
                self._look()
            except Exception:  # a folder of a kind nobody thought of must not end the server
                logger.exception("looking for versions failed; trying again")
            self._on_look()
            with self._round_done:
                self._num_rounds += 1
                self._round_done.notify_all()
            self._wake.wait(self._poll_seconds)

    def _look(self) -> None:
        with self._lock:
            models, dropped = list(self._models.values()), list(self._dropped)
        num_given_up = sum(model.update() for model in models)
        dropped += [before for model in models if (before := model.retire_before()) is not None]
        with self._lock:
            self._dropped += [model for model in dropped if model not in self._dropped]
        num_given_up += sum(model.update(is_dropped=True) for model in dropped)
        with self._lock:
            self._dropped = [model for model in self._dropped if not model.is_empty]
        if num_given_up:
            # the threads of the last requests may hold parts of a version for a moment longer, and TensorFlow's
            # functions, which no weak reference shows, even more: one collection was too early in one of four reloads
            self._collections_left = NUM_COLLECTIONS
        if self._collections_left > 0:
            self._collections_left -= 1
            free_memory()
