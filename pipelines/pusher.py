"""The executor of Pusher: a version appears whole or not at all, and is above those that are there."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any

from tfx.components.pusher import executor
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.utils import proto_utils

from pipelines.tfx_extra import tfx
from savedmodels.versions import new_version, numbers


class Executor(executor.Executor):
    """Copies a blessed model to the folder that servers watch.

    TFX's own copies file by file under the final name, so that a kill leaves half a model there, and keeps a further
    copy with its artifact.
    """

    def Do(
        self, input_dict: dict[str, list[Any]], output_dict: dict[str, list[Any]], exec_properties: dict[str, Any]
    ) -> None:
        """See `tfx.components.pusher.executor.Executor`."""
        self._log_startup(input_dict, output_dict, exec_properties)
        (pushed,) = output_dict["pushed_model"]
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        destination = tfx.proto.PushDestination()
        proto_utils.json_to_proto(exec_properties["push_destination"], destination)
        folder = Path(destination.filesystem.base_directory)
        folder.mkdir(parents=True, exist_ok=True)
        # the clock may have been set back, and servers take the highest
        version = max(int(time.time()), max(numbers(folder), default=0) + 1)
        with new_version(folder, version) as (partial, number):
            shutil.copytree(self.GetModelPath(input_dict), partial, dirs_exist_ok=True)
        Path(pushed.uri).mkdir(parents=True, exist_ok=True)
        self._MarkPushed(pushed, pushed_destination=str(folder / str(number)), pushed_version=str(number))
        logging.getLogger(__name__).info("pushed to %s", folder / str(number))


class Pusher(tfx.components.Pusher):
    """TFX's Pusher with this executor."""

    EXECUTOR_SPEC = ExecutorClassSpec(Executor)
