"""Arrays of a request: every value is what the signature asks for, or an error names it."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from savedmodels.wire.arrays import InputError, to_array
from savedmodels.wire.batches import check_arrays, check_names, cut, join
from savedmodels.wire.protos import tensor_pb2
from savedmodels.wire.signatures import DTYPES, SignatureSpec, TensorSpec, dtype_text
from savedmodels.wire.tensors import from_proto, to_proto

MAX_BYTES = 10**6


def spec(name: str, dtype: str, *shape: int | None) -> TensorSpec:
    return TensorSpec(name=name, dtype=np.dtype(dtype), shape=shape)


def signature(name: str = "predict", outputs: int | None = None) -> SignatureSpec:
    inputs = [
        spec("dense", "float32", None, 2),
        spec("tags", "int64", None),
        spec("tags_row_lengths", "int64", None),
        spec("tags_weights", "float32", None),
        spec("user", "int64", None),
    ]
    return SignatureSpec(
        name=name, inputs={each.name: each for each in inputs}, outputs={"p": spec("p", "float32", outputs, 1)}
    )


def arrays(num_rows: int) -> dict[str, np.ndarray]:
    lengths = np.arange(num_rows) % 3
    return {
        "dense": np.ones([num_rows, 2], np.float32),
        "tags": np.arange(lengths.sum()),
        "tags_row_lengths": lengths,
        "tags_weights": np.ones(lengths.sum(), np.float32),
        "user": np.arange(num_rows),
    }


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("int64", [1, 2.0, -3], [1, 2, -3]),
        ("int64", [[2**63 - 1], [-(2**63)]], [[2**63 - 1], [-(2**63)]]),
        ("int64", np.array([3, 4], np.int32), [3, 4]),
        ("int64", np.array([3.0, 4.0]), [3, 4]),
        ("float32", [1, 0.5], [1.0, 0.5]),
        ("float32", np.array([1, 2]), [1.0, 2.0]),
        ("object", ["é", b"\xff", {"b64": "AAE="}], ["é".encode(), b"\xff", b"\x00\x01"]),
        ("object", np.array(["a", "bc"]), [b"a", b"bc"]),
        ("bool", [True, False], [True, False]),
        ("int64", [], []),
    ],
)
def test_values_become_the_signatures_dtype(dtype, value, expected):
    array = to_array(spec("x", dtype, None), value)
    assert array.dtype == np.dtype(dtype)
    assert array.tolist() == expected


def test_nan_and_infinity_pass():
    assert np.isnan(to_array(spec("x", "float32", None), [float("nan"), 1])[0])
    assert np.isinf(to_array(spec("x", "float32", None), [float("inf")])[0])


def test_an_empty_list_has_the_signatures_other_dimensions():
    assert to_array(spec("x", "float32", None, 3), []).shape == (0, 3)


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("int64", ["7"], "input 'x', row 0: '7'; int64 \\[\\?\\] is expected"),
        ("int64", [1, 1.5], "input 'x', row 1: 1.5;"),
        ("int64", [1, 2**63], "input 'x', row 1: 9223372036854775808;"),
        ("int64", [1e17], "row 0: 1e\\+17"),  # a float64 of this size may have lost digits
        ("int64", [float("nan")], "row 0: nan"),
        ("int64", [True], "row 0: True"),
        ("int64", [None], "row 0: null"),
        ("int64", [[1], [1, 2]], "entry 1 is a list of 2 where entry 0 is a list of 1"),
        ("int64", [1, [2]], "entry 1 is a list where entry 0 is 1"),
        ("int64", [[1], 2], "entry 1 is 2 where entry 0 is a list of 1"),
        ("int32", np.array([1, 2**40]), "row 1: 1099511627776; int32"),
        ("float32", [0.5, "a"], "row 1: 'a'; float32"),
        ("float32", [1e39], "row 0: 1e\\+39"),
        ("float32", [10**400], "a number of more than 30 digits"),
        ("float32", np.array(["a"]), "string was given; float32"),
        ("object", [1], "row 0: 1; string"),
        ("object", ["\ud800"], "not valid Unicode"),
        ("object", [{"b64": "!"}], "not base64"),
        ("bool", [1], "row 0: 1; bool"),
    ],
)
def test_other_values_are_refused_by_name(dtype, value, message):
    with pytest.raises(InputError, match=message):
        to_array(spec("x", dtype, None), value)


def test_lists_cannot_be_nested_without_end():
    value: list = []
    for _ in range(1000):
        value = [value]
    with pytest.raises(InputError, match="nested more than 8 deep"):
        to_array(spec("x", "int64", None), value)


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_tensor_protos_are_tensorflows(dtype):
    array = np.array([[1, 0], [1, 1]]).astype(DTYPES[dtype])
    if dtype == "DT_STRING":
        array = np.array([[b"a", b""], [b"\xff", b"c"]], object)
    np.testing.assert_array_equal(tf.make_ndarray(to_proto(array)), array)
    for proto in (tf.make_tensor_proto(array), to_proto(array), tf.make_tensor_proto(array[:0])):
        read = from_proto("x", proto, MAX_BYTES)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, tf.make_ndarray(proto))


def test_values_written_one_by_one_are_read_and_the_last_one_repeated():
    proto = tensor_pb2.TensorProto(dtype=1, float_val=[1, 2])
    proto.tensor_shape.dim.add().size = 4
    assert from_proto("x", proto, MAX_BYTES).tolist() == [1, 2, 2, 2]


@pytest.mark.parametrize(
    ("fields", "sizes", "message"),
    [
        ({"dtype": 1, "float_val": [1.0]}, [10**9], "more than the 1000000 bytes"),
        ({"dtype": 1}, [0, 2**62], "more than the 1000000 bytes"),
        ({"dtype": 1, "float_val": [1.0]}, [-1], "not fully known"),
        ({"dtype": 1, "float_val": [1.0, 2.0]}, [1], "2 values were given for a shape of 1"),
        ({"dtype": 1}, [3], "0 values were given"),
        ({"dtype": 1, "tensor_content": b"abc"}, [1], "tensor_content holds 3 bytes"),
        ({"dtype": 7, "tensor_content": b"abc"}, [1], "strings are expected in string_val"),
        ({"dtype": 20}, [1], "DT_RESOURCE is not supported"),
        ({"dtype": 12345}, [1], "dtype 12345 is not supported"),
    ],
)
def test_a_proto_that_claims_what_it_does_not_hold_is_refused(fields, sizes, message):
    proto = tensor_pb2.TensorProto(**fields)
    for size in sizes:
        proto.tensor_shape.dim.add().size = size
    with pytest.raises(InputError, match=f"input 'x': .*{message}"):
        from_proto("x", proto, MAX_BYTES)


@given(st.binary(max_size=60))
def test_no_bytes_of_a_proto_raise_anything_else(data):
    try:
        proto = tensor_pb2.TensorProto.FromString(data)
    except Exception:
        return  # gRPC's service refuses it
    with contextlib.suppress(InputError):
        from_proto("x", proto, MAX_BYTES)


def test_names_are_checked():
    check_names(signature(), list(arrays(1)))
    with pytest.raises(InputError, match=r"input 'usr' is unknown to signature 'predict'\. Did you mean 'user'\?"):
        check_names(signature(), [*arrays(1), "usr"])
    with pytest.raises(InputError, match=r"missing inputs: dense \(float32 \[\?, 2\]\)"):
        check_names(signature(), [name for name in arrays(1) if name != "dense"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": np.zeros(3, np.int32)}, "input 'user': int32 was given; int64 \\[\\?\\] is expected"),
        ({"user": np.zeros([3, 1], np.int64)}, "input 'user': shape \\[3, 1\\] was given"),
        ({"dense": np.zeros([3, 5], np.float32)}, "input 'dense': shape \\[3, 5\\] was given; float32 \\[\\?, 2\\]"),
        ({"user": np.zeros(2, np.int64)}, "input 'user' has 2 rows where 'dense' has 3"),
        ({"tags_row_lengths": np.array([0, 1, 3])}, "'tags_row_lengths' adds up to 4, but 'tags' holds 3"),
        ({"tags_row_lengths": np.array([0, -1, 4])}, "'tags_row_lengths', row 1: -1 is no length"),
        ({"tags_row_lengths": np.array([2**62, 2**62, 2**63 - 1])}, "adds up to 18446744073709551615"),
        ({"tags_weights": np.zeros(2, np.float32)}, "but 'tags_weights' holds 2"),
        (arrays(11), "has 11 rows; a request may have 10"),
    ],
)
def test_arrays_are_checked(changes, message):
    with pytest.raises(InputError, match=message):
        check_arrays(signature(), {**arrays(3), **changes}, max_rows=10)


def test_rank_takes_one_row_of_the_user_and_many_candidates():
    mixed = {**arrays(3), "dense": np.ones([1, 2], np.float32)}
    assert check_arrays(signature("rank"), mixed, 10) == 3
    with pytest.raises(InputError, match=r"'dense' has 2 rows where .* 1 or as many is expected"):
        check_arrays(signature("rank"), {**mixed, "dense": np.ones([2, 2], np.float32)}, 10)


@given(st.integers(0, 25), st.integers(1, 9))
def test_parts_joined_are_the_whole(num_rows, max_rows):
    whole = arrays(num_rows)
    parts = list(cut(signature(), whole, max_rows))
    assert all(len(part["user"]) <= max_rows for part in parts)
    for part in parts:
        check_arrays(signature(), part, max_rows)
    joined = join(parts)
    assert all(np.array_equal(joined[name], whole[name]) for name in whole)


def test_rank_is_not_cut():
    with pytest.raises(InputError, match="signature 'rank' cannot be asked in parts"):
        list(cut(signature("rank"), arrays(5), 2))


def test_only_batch_first_signatures_are_put_together():
    assert signature().is_batch_first
    assert not signature("rank").is_batch_first
    assert not signature(outputs=1).is_batch_first


@pytest.mark.multiprocess
def test_clients_and_protos_import_no_tensorflow():
    """And TensorFlow can be imported after them."""
    code = (
        "import sys\n"
        "import savedmodels.client\n"
        "savedmodels.client.RestClient('127.0.0.1:1')\n"
        "print([name for name in sys.modules if name.startswith(('tensorflow', 'google.protobuf', 'grpc'))])\n"
        "savedmodels.client.GrpcClient('127.0.0.1:1').close()\n"
        "print('tensorflow' in sys.modules, any(n.startswith('tensorflow.python') for n in sys.modules))\n"
        "import tensorflow as tf\n"
        "from savedmodels.wire.protos import tensor_pb2\n"
        "print(isinstance(tf.make_tensor_proto([1]), tensor_pb2.TensorProto))\n"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert run.stdout.splitlines() == ["[]", "False False", "True"], run.stderr


def test_strings_have_a_name_of_their_own():
    assert [dtype_text(DTYPES[name]) for name in ("DT_STRING", "DT_INT64")] == ["string", "int64"]
