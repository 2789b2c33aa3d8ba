"""Versions come and go under running requests: none is lost, and a broken one does no harm."""

from __future__ import annotations

import shutil
import threading
import weakref

import pytest
from tensorflow_serving.apis import model_management_pb2

from savedmodels.server.config import ModelConfig, from_proto, read_config
from savedmodels.server.errors import ServingError
from savedmodels.server.folders import missing_parts, version_folders
from savedmodels.server.inference import Target
from savedmodels.server.model_info import model_status
from savedmodels.server.options import ServerOptions
from savedmodels.wire.arrays import to_array
from tests.savedmodels.server.conftest import WAIT_SECONDS, call_for
from tests.savedmodels.server.tiny_models import predict_inputs


def test_a_new_version_takes_over_and_the_old_one_is_freed(serve, publish):
    publish(1)
    served = serve()
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    assert served.ask() == [1, 1, 1]
    lease = served.store.model("tiny").lease()
    memory = weakref.ref(lease.model)
    lease.release()
    del lease
    publish(2)
    served.wait(lambda: served.states() == {1: "END", 2: "AVAILABLE"})
    assert served.ask() == [2, 2, 2]
    served.wait(lambda: memory() is None)
    assert 'version="1"' not in served.metrics.page().decode()
    assert 'version="2"' in served.metrics.page().decode()


def test_a_running_request_ends_on_the_version_it_began_with(serve, publish):
    publish(1)
    served = serve()
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    lease = served.store.model("tiny").lease()
    publish(2)
    served.wait(lambda: served.states() == {1: "UNLOADING", 2: "AVAILABLE"})
    assert served.ask() == [2, 2, 2]
    with pytest.raises(ServingError, match=r"version 1 of model 'tiny' is not available\. Available: 2"):
        served.ask(version=1)
    inputs = {
        name: to_array(lease.model.signatures["predict"].inputs[name], v) for name, v in predict_inputs(2).items()
    }
    assert lease.model.run("predict", inputs)["version"].tolist() == [1, 1]
    lease.release()
    served.wait(lambda: served.states() == {1: "END", 2: "AVAILABLE"})


def test_constant_load_loses_nothing_and_mixes_nothing(serve, publish):
    publish(1)
    served = serve()
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    stopped, seen, failures = threading.Event(), [], []

    def ask() -> None:
        while not stopped.is_set():
            try:
                seen.append(tuple(served.ask(inputs=predict_inputs(5))))
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    served.wait(lambda: seen != [])
    for number in (2, 3):
        publish(number)
        served.wait(lambda number=number: (number,) * 5 in seen[-10:])
    stopped.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert set(seen) == {(number,) * 5 for number in (1, 2, 3)}


def test_half_written_and_hidden_folders_wait(serve, publish, versions, tmp_path, caplog):
    publish(1)
    served = serve()
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    base = tmp_path / "model"
    for name in (".3", "3.tmp", "latest", "-4"):
        shutil.copytree(versions / "3", base / name)
    (base / "2" / "variables").mkdir(parents=True)
    shutil.copy(versions / "2" / "saved_model.pb", base / "2")
    shutil.copy(versions / "2" / "variables" / "variables.index", base / "2" / "variables")
    assert missing_parts(base / "2") == ["variables/variables.data-*"]
    assert set(version_folders(base)) == {1, 2}
    served.store.wait_for_round(WAIT_SECONDS)
    assert served.states() == {1: "AVAILABLE"}
    data = "variables.data-00000-of-00001"
    shutil.copy(versions / "2" / "variables" / data, base / "2" / "variables" / data)
    served.wait(lambda: served.states() == {1: "END", 2: "AVAILABLE"})


def test_a_broken_version_is_told_and_the_previous_one_serves_on(serve, publish, tmp_path, versions):
    publish(1)
    served = serve()
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    base = tmp_path / "model"
    shutil.copytree(versions / "2", base / ".2")
    data = base / ".2" / "variables" / "variables.data-00000-of-00001"
    good = data.read_bytes()
    data.write_bytes(good[:10] + bytes(len(good) - 10))
    (base / ".2").rename(base / "2")
    served.wait(lambda: served.states() == {1: "AVAILABLE", 2: "END"})
    broken = served.store.model("tiny").statuses()[0]
    assert broken.error_code in ("DATA_LOSS", "UNKNOWN")  # TensorFlow's own choice, by which part is damaged
    assert f"{base / '2'} cannot be loaded: " in broken.error_message
    assert served.ask() == [1, 1, 1]
    data = base / "2" / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(good)  # its files have changed: it is tried again
    served.wait(lambda: served.states() == {1: "END", 2: "AVAILABLE"})
    assert served.ask() == [2, 2, 2]


def test_garbage_instead_of_a_graph_is_told(serve, publish, tmp_path):
    folder = publish(1)
    (folder / "saved_model.pb").write_bytes(b"garbage")
    served = serve()
    served.wait(lambda: served.states() == {1: "END"})
    with pytest.raises(
        ServingError, match=r"model 'tiny' has no version to serve\. Version 1: .*cannot be loaded"
    ) as caught:
        served.ask()
    assert caught.value.code == "NOT_FOUND"


def test_a_removed_folder_is_served_from_memory_and_marked(serve, publish, tmp_path):
    publish(1)
    served = serve()
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    shutil.rmtree(tmp_path / "model" / "1")
    served.wait(lambda: served.store.model("tiny").statuses()[0].is_removed)
    assert served.ask() == [1, 1, 1]
    (status,) = served.store.model("tiny").statuses()
    assert status.error_message == "its folder is gone; it is served from memory"
    publish(2)
    served.wait(lambda: served.states() == {1: "END", 2: "AVAILABLE"})


def test_policies(serve, publish, tmp_path):
    for number in (1, 2, 3):
        publish(number)
    served = serve(num_latest=2)
    served.wait(lambda: served.states() == {2: "AVAILABLE", 3: "AVAILABLE"})
    assert served.ask() == [3, 3, 3]
    assert served.ask(version=2) == [2, 2, 2]
    base = tmp_path / "model"
    served.store.reload([ModelConfig(name="tiny", base_path=base, num_latest=None, versions=(1,))], WAIT_SECONDS)
    served.wait(lambda: served.states() == {1: "AVAILABLE", 2: "END", 3: "END"})
    served.store.reload([ModelConfig(name="tiny", base_path=base, num_latest=None)], WAIT_SECONDS)
    served.wait(lambda: set(served.states().values()) == {"AVAILABLE"})


def test_labels_move_at_once_or_not_at_all(serve, publish, tmp_path):
    publish(1)
    publish(2)
    base = tmp_path / "model"
    served = serve(num_latest=2, labels={"stable": 1})
    served.wait(lambda: served.states() == {1: "AVAILABLE", 2: "AVAILABLE"})
    served.wait(lambda: dict(served.store.model("tiny").labels) == {"stable": 1})
    assert served.ask(label="stable") == [1, 1, 1]
    config = {"name": "tiny", "base_path": base, "num_latest": 2}
    served.store.reload([ModelConfig(**config, labels={"stable": 2, "canary": 2})], WAIT_SECONDS)
    assert served.ask(label="stable") == served.ask(label="canary") == [2, 2, 2]
    with pytest.raises(ServingError, match=r"not: tiny: stable -> 7\. No label was set") as caught:
        served.store.reload([ModelConfig(**config, labels={"canary": 1, "stable": 7})], WAIT_SECONDS)
    assert caught.value.code == "FAILED_PRECONDITION"
    assert served.ask(label="canary") == [2, 2, 2]


def test_a_model_left_out_of_the_config_is_unloaded(serve, publish, tmp_path, versions):
    publish(1)
    served = serve()
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="other", base_path=str(versions))
    served.store.reload(from_proto(request.config), WAIT_SECONDS)
    with pytest.raises(ServingError, match=r"model 'tiny' is not served here\. Models: other"):
        served.ask()
    assert served.store.model("other").lease().number == 3


def test_a_deadline_ends_the_work_and_frees_the_version(serve, publish, gate):
    publish(1)
    served = serve()
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    with pytest.raises(ServingError) as caught:
        served.inference.predict(
            Target(model="tiny", signature="held"),
            lambda spec: {"gate": to_array(spec.inputs["gate"], gate.inputs)},
            call=call_for(0.1),
        )
    assert caught.value.code == "DEADLINE_EXCEEDED"
    publish(2)
    # the gate stays shut: the call of version 1 ends all the same
    served.wait(lambda: served.states() == {1: "END", 2: "AVAILABLE"})


def test_another_folder_takes_over_when_a_version_of_it_can_answer(serve, publish, versions, tmp_path):
    publish(1)
    served = serve(labels={"stable": 1})
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    other, broken = tmp_path / "other", tmp_path / "broken"
    shutil.copytree(versions / "2", other / "2")
    shutil.copytree(versions / "3", broken / "3")
    (broken / "3" / "saved_model.pb").write_bytes(b"garbage")
    stopped, seen, failures = threading.Event(), [], []

    def ask() -> None:
        while not stopped.is_set():
            try:
                seen.append((*served.ask(), *served.ask(label="stable")))
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    served.wait(lambda: seen != [])
    for folder, number in ((broken, 3), (other, 2), (broken, 3)):
        served.store.reload([ModelConfig(name="tiny", base_path=folder, labels={"stable": number})], WAIT_SECONDS)
        assert served.store.is_ready
        if folder == broken:
            status = served.store.model("tiny").statuses()[0]
            assert (status.number, status.state) == (3, "END")
            assert "cannot be loaded" in status.error_message
            # what answers is listed as such, with a remark why
            (serving,) = [each for each in served.store.model("tiny").statuses() if each.state == "AVAILABLE"]
            assert served.ask() == [serving.number] * 3
            assert f"{'model' if serving.number == 1 else 'other'} serves on: {{name: tiny ver" in serving.error_message
    served.wait(lambda: seen[-1][:3] == (2, 2, 2))
    stopped.set()
    thread.join()
    assert not failures
    assert {answer[:3] for answer in seen} == {(1, 1, 1), (2, 2, 2)}
    assert served.ask(label="stable") == [2, 2, 2]
    # what served before has ended
    served.wait(lambda: served.states() == {2: "AVAILABLE", 3: "END"})


def test_a_reload_tells_which_model_is_not_there_and_leaves_the_others(serve, publish, versions, tmp_path):
    publish(1)
    served = serve()
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    shutil.copytree(versions / "2", tmp_path / "b" / "2")
    (tmp_path / "b" / "2" / "saved_model.pb").write_bytes(b"garbage")
    (tmp_path / "c" / "5").mkdir(parents=True)
    tiny = ModelConfig(name="tiny", base_path=tmp_path / "model")
    for name, said in (
        ("b", r"^1 model\(s\) did not become available: \{\{name: b version: 2\} due to error: .*cannot be loaded"),
        ("c", r"^1 model\(s\) did not become available: \{\{name: c\} due to error: version 5 lacks saved_model\.pb"),
    ):
        with pytest.raises(ServingError, match=said) as caught:
            served.store.reload([tiny, ModelConfig(name=name, base_path=tmp_path / name)], WAIT_SECONDS)
        assert caught.value.code == "UNKNOWN"
        assert served.ask() == [1, 1, 1]
        assert served.store.is_ready
    shutil.copytree(versions / "3", tmp_path / "b" / "3")
    served.store.reload([tiny, ModelConfig(name="b", base_path=tmp_path / "b")], WAIT_SECONDS)
    assert served.store.model("b").lease().number == 3


def test_what_serves_is_available_though_the_new_folder_has_a_broken_version_of_its_number(
    serve, publish, versions, tmp_path
):
    publish(1)
    served = serve()
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    for name in ("broken", "empty"):
        (tmp_path / name).mkdir()
    shutil.copytree(versions / "1", tmp_path / "broken" / "1")
    (tmp_path / "broken" / "1" / "saved_model.pb").write_bytes(b"garbage")
    for name, why in (
        ("broken", "version: 1} due to error: UNKNOWN: "),
        ("empty", "due to error: no version is there"),
    ):
        served.store.reload([ModelConfig(name="tiny", base_path=tmp_path / name)], WAIT_SECONDS)
        [entry] = model_status(served.store, Target(model="tiny")).model_version_status
        assert (entry.version, entry.state) == (1, entry.AVAILABLE)
        assert f"{tmp_path / 'model'} serves on: {{name: tiny" in entry.status.error_message
        assert why in entry.status.error_message
        assert served.ask() == [1, 1, 1]
    shutil.copytree(versions / "2", tmp_path / "empty" / "2")
    served.wait(lambda: served.states() == {2: "AVAILABLE"})


def test_readiness_after_the_first_models_are_gone(serve, publish, versions, tmp_path):
    served = serve()
    served.store.wait_for_round(WAIT_SECONDS)
    assert not served.store.is_ready
    served.store.reload([], WAIT_SECONDS)
    assert served.store.is_ready  # nothing is asked for
    (tmp_path / "empty").mkdir()
    with pytest.raises(ServingError, match="did not become available"):
        served.store.reload([ModelConfig(name="empty", base_path=tmp_path / "empty")], WAIT_SECONDS)
    assert not served.store.is_ready
    folders = {"empty": tmp_path / "empty", "b": versions}
    served.store.reload([ModelConfig(name=name, base_path=path) for name, path in folders.items()], WAIT_SECONDS)
    assert served.store.is_ready


def test_labels_come_with_their_versions(serve, publish):
    publish(1)
    served = serve(num_latest=None, versions=(1, 2), labels={"stable": 1, "canary": 2})
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    assert served.ask(label="stable") == [1, 1, 1]
    with pytest.raises(ServingError, match="no version label 'canary'"):
        served.ask(label="canary")
    publish(2)
    served.wait(lambda: served.states() == {1: "AVAILABLE", 2: "AVAILABLE"})
    publish(3)
    served.store.wait_for_round(WAIT_SECONDS)
    assert served.ask(label="stable") == [1, 1, 1]
    assert served.ask(label="canary") == [2, 2, 2]


def test_versions_are_any_int64(serve, publish, tmp_path):
    served = serve()
    publish(1, folder_name=str(2**63))  # one too many
    served.store.wait_for_round(WAIT_SECONDS)
    with pytest.raises(ServingError, match=r"^Could not find any versions of model 'tiny'\.$") as caught:
        model_status(served.store, Target(model="tiny"))
    assert caught.value.code == "NOT_FOUND"
    publish(1, folder_name=str(2**63 - 1))
    served.wait(lambda: served.states() == {2**63 - 1: "AVAILABLE"})
    assert served.ask(version=2**63 - 1) == [1, 1, 1]
    [entry] = model_status(served.store, Target(model="tiny")).model_version_status
    assert entry.version == 2**63 - 1
    assert version_folders(tmp_path / "model").keys() == {2**63 - 1}


def test_config_files_are_tensorflow_servings(tmp_path):
    file = tmp_path / "models.config"
    file.write_text(
        'model_config_list { config { name: "a" base_path: "/a" model_platform: "tensorflow" '
        "model_version_policy { specific { versions: 3 versions: 4 } } "
        'version_labels { key: "stable" value: 3 } } config { name: "b" base_path: "/b" '
        "model_version_policy { all {} } } }"
    )
    first, second = read_config(file)
    assert (first.name, first.num_latest, first.versions, first.labels) == ("a", None, (3, 4), {"stable": 3})
    assert second.wanted({1, 2, 5}) == {1, 2, 5}
    assert first.wanted({1, 2, 3}) == {3}
    file.write_text(
        'model_config_list { config { name: "a" base_path: "/a" model_platform: "tensorflow" '
        "model_version_policy { specific { versions: 3 versions: -4 } } } }"
    )
    with pytest.raises(
        ValueError, match=r"model 'a': version -4 is not possible\. Versions are 0 to 9223372036854775807"
    ):
        read_config(file)
    file.write_text("model_config_list {")
    with pytest.raises(ValueError, match=r"models\.config is no text of a ModelServerConfig"):
        read_config(file)
    file.write_text('model_config_list { config { name: "a" base_path: "/a" model_platform: "caffe" } }')
    with pytest.raises(ValueError, match="model 'a': model_platform \"caffe\""):
        read_config(file)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org"])
def test_other_machines_are_let_in_only_when_asked_for(host):
    with pytest.raises(ValueError, match="--allow-any-address"):
        ServerOptions(host=host)
    assert ServerOptions(host=host, allow_any_address=True).host == host
    assert ServerOptions(host="127.0.0.2").host == "127.0.0.2"
