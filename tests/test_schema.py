"""FeatureSpec: order, round trips and what it refuses."""

from __future__ import annotations

import copy
import dataclasses
import os
import re

import pytest
from hypothesis import given

from tests.strategies import feature_specs
from tfdlrm.checks import nearest
from tfdlrm.schema import (
    CategoricalColumn,
    DenseColumn,
    FeatureSpec,
    criteo_feature_spec,
    reject_unknown_keys,
)
from tfdlrm.yaml_text import dump_yaml, parse_yaml


def spec(**fields):
    defaults = {
        "labels": ("click",),
        "dense": (DenseColumn(name="age"), DenseColumn(name="price", transform="log1p")),
        "categorical": (CategoricalColumn(name="viewed", table="item"), CategoricalColumn(name="user")),
    }
    return FeatureSpec(**{**defaults, **fields})


def test_order_and_counts():
    one = spec(
        labels=("click", "buy"),
        categorical=(
            CategoricalColumn(name="z", table="item"),
            CategoricalColumn(name="a"),
            CategoricalColumn(name="m", table="item"),
        ),
    )
    assert one.label == "click"
    assert one.num_dense == 2
    assert one.feature_names == ("z", "a", "m")
    assert one.table_names == ("item", "a")


@given(feature_specs())
def test_round_trips_through_dict_and_yaml(one):
    assert FeatureSpec.from_dict(one.to_dict()) == one
    assert FeatureSpec.from_dict(parse_yaml(dump_yaml(one.to_dict()), "test")) == one


@given(feature_specs())
def test_equal_specs_hash_and_copy_alike(one):
    other = copy.deepcopy(one)
    assert other == one
    assert hash(other) == hash(one)


def test_saved_to_a_folder_or_a_file(tmp_path):
    one = spec(vocabulary_sizes={"item": 7}, keys=("row_id", "user"))
    assert one.save(tmp_path / "new") == tmp_path / "new" / "schema.yaml"
    assert FeatureSpec.load(tmp_path / "new") == one
    assert one.save(tmp_path / "other.yaml") == tmp_path / "other.yaml"
    assert FeatureSpec.load(tmp_path / "other.yaml") == one


def test_vocabulary_sizes_are_added_and_replaced():
    one = spec(vocabulary_sizes={"item": 7}).with_vocabulary_sizes({"user": 3})
    assert one.vocabulary_sizes == {"item": 7, "user": 3}
    assert one.with_vocabulary_sizes({"item": 8}).vocabulary_sizes == {"item": 8, "user": 3}


def test_nothing_can_be_changed():
    one = spec(vocabulary_sizes={"item": 7})
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.labels = ("x",)
    with pytest.raises(TypeError):
        one.vocabulary_sizes["item"] = 8


def test_a_later_change_of_the_argument_does_not_reach_the_spec():
    sizes = {"item": 7}
    one = spec(vocabulary_sizes=sizes)
    sizes["item"] = 8
    assert one.vocabulary_sizes == {"item": 7}


def test_numbers_are_normalised():
    column = DenseColumn(name="x", transform="clip", minimum=0, maximum=5)
    assert isinstance(column.minimum, float)
    assert not DenseColumn(name="x", transform="standardize").is_fitted
    assert DenseColumn(name="x", transform="standardize", mean=1, std=2).is_fitted


def test_criteo_columns():
    one = criteo_feature_spec(tuple(range(1, 27)))
    assert one.label == "label"
    assert [c.name for c in one.dense] == [f"int_{i}" for i in range(1, 14)]
    assert {(c.transform, c.missing) for c in one.dense} == {("log1p", 0.0)}
    assert one.feature_names == tuple(f"cat_{i}" for i in range(1, 27))
    assert {c.encoding for c in one.categorical} == {"hex"}
    assert one.vocabulary_sizes["cat_26"] == 26
    assert criteo_feature_spec().vocabulary_sizes == {}
    with pytest.raises(ValueError, match="3 vocabulary sizes for 26 tables"):
        criteo_feature_spec((1, 2, 3))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": ()}, "labels is empty"),
        ({"labels": "click"}, "labels='click' is a str. Give a list"),
        ({"labels": (1,)}, r"labels\[0\]=1 is not a name"),
        ({"labels": ("a", "a")}, "columns has 'a' twice"),
        ({"labels": ("age",)}, "columns has 'age' twice"),
        ({"dense": (DenseColumn(name="user"),)}, "columns has 'user' twice"),
        ({"dense": ("age",)}, r"dense\[0\]='age' is a str. Give a DenseColumn"),
        ({"categorical": (CategoricalColumn(name="dense"),)}, "named 'dense'"),
        ({"keys": ("k", "k")}, "keys has 'k' twice"),
        ({"vocabulary_sizes": {"itme": 3}}, "unknown key 'itme', did you mean 'item'"),
        ({"vocabulary_sizes": {"item": 0}}, "item=0 is too small"),
        ({"vocabulary_sizes": {"item": 2.0}}, "item=2.0 is a float"),
        ({"vocabulary_sizes": {"item": True}}, "item=True is a bool"),
        ({"vocabulary_sizes": [3]}, "is a list. Give a mapping"),
    ],
)
def test_a_bad_spec_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        spec(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "name='' is not a name"),
        ({"name": " x"}, "name=' x' is not a name"),
        ({"name": 3}, "name=3 is not a name"),
        ({"transform": "log"}, "dense column 'x': transform='log' is not known, did you mean 'log1p'"),
        ({"transform": None}, "transform=None is not known"),
        ({"missing": "0"}, "missing='0' is a str"),
        ({"missing": float("nan")}, "missing=nan is out of range"),
        ({"mean": 1.0, "std": 1.0}, "mean=1.0 has no meaning with transform='identity'"),
        ({"transform": "standardize", "mean": 1.0}, "mean is given without its partner"),
        (
            {"transform": "standardize", "mean": 1.0, "std": 0.0},
            "std=0.0 is out of range. Give a finite number > 0",
        ),
        ({"transform": "log1p", "maximum": 3.0}, "maximum=3.0 has no meaning with transform='log1p'"),
        ({"transform": "clip"}, "has no bound"),
        ({"transform": "clip", "minimum": 3, "maximum": 2}, "minimum=3.0 is above maximum=2.0"),
    ],
)
def test_a_bad_dense_column_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DenseColumn(**{"name": "x", **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": None}, "name=None is not a name"),
        ({"table": 3}, "categorical column 'x': table=3 is a int"),
        ({"table": " "}, "table=' ' is not a name"),
        ({"hotness": 0}, "hotness=0 is too small. Give an integer of 1 or more"),
        ({"hotness": 1.0}, "hotness=1.0 is a float"),
        ({"id_policy": "eror"}, "id_policy='eror' is not known, did you mean 'error'"),
        ({"encoding": "base64"}, "encoding='base64' is not known"),
        ({"separator": ""}, "separator is empty"),
        ({"weights": None}, "weights=None is a NoneType"),
    ],
)
def test_a_bad_categorical_column_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CategoricalColumn(**{"name": "x", **fields})


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (None, "FeatureSpec: got None, a NoneType. Give a mapping"),
        ([], "FeatureSpec: got [], a list"),
        ({}, "FeatureSpec: key 'labels' is missing"),
        ({"labels": ["y"], "categorial": []}, "unknown key 'categorial', did you mean 'categorical'"),
        (
            {"labels": ["y"], "dense": [{"name": "x", "transfrom": "log1p"}]},
            "unknown key 'transfrom', did you mean",
        ),
        ({"labels": ["y"], "dense": [{"transform": "log1p"}]}, "DenseColumn: key 'name' is missing"),
        ({"labels": ["y"], "dense": ["x"]}, "DenseColumn: got 'x', a str"),
        ({"labels": ["y"], "dense": {"name": "x"}}, "dense={'name': 'x'} is a dict. Give a list"),
        ({"labels": ["y"], 3: 4}, "unknown key 3. Valid keys"),
    ],
)
def test_a_bad_plain_form_is_refused(plain, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        FeatureSpec.from_dict(plain)


def test_errors_of_a_file_name_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"schema\.yaml: no schema there"):
        FeatureSpec.load(tmp_path)
    os.mkfifo(tmp_path / "schema.yaml")
    with pytest.raises(ValueError, match=r"schema\.yaml: is a folder, a device, a pipe or a socket"):
        FeatureSpec.load(tmp_path)
    (tmp_path / "schema.yaml").unlink()
    (tmp_path / "schema.yaml").write_text("labels: [y]\ndens: []\n")
    with pytest.raises(ValueError, match=r"schema\.yaml: FeatureSpec: unknown key 'dens', did you mean 'dense'"):
        FeatureSpec.load(tmp_path)
    (tmp_path / "schema.yaml").write_text("labels: [y\n")
    with pytest.raises(ValueError, match=r"(?s)schema\.yaml: not valid YAML.*line 2"):
        FeatureSpec.load(tmp_path)
    (tmp_path / "schema.yaml").write_text("labels: [y]\nkeys: []\nlabels: [z]\n")
    with pytest.raises(ValueError, match=r"(?s)key 'labels' is given twice.*line 3"):
        FeatureSpec.load(tmp_path)


def test_unknown_key_without_a_near_one():
    with pytest.raises(ValueError, match=re.escape("Thing: unknown key 'zzz'. Valid keys: alpha, beta.")):
        reject_unknown_keys("Thing", ["alpha", "zzz"], ["alpha", "beta"])


def test_nearest_ignores_case():
    assert nearest("EPOCH", ["epochs", "seed"]) == "epochs"
    assert nearest("epoch", ["Epochs"]) == "Epochs"
    assert nearest(None, ["epochs"]) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-2.5e-1", -0.25),
        ("3", 3),
        ("'1e-3'", "1e-3"),
        ("1e", "1e"),
    ],
)
def test_numbers_in_yaml(text, value):
    parsed = parse_yaml(text, "test")
    assert parsed == value
    assert type(parsed) is type(value)


def test_yaml_cannot_build_python_objects():
    with pytest.raises(ValueError, match="could not determine a constructor"):
        parse_yaml("!!python/object/apply:os.getcwd []", "test")
