"""Batches from Arrow tables: what a column becomes, and which row is to blame."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

import vectorkit as vk


def table(**changes: object) -> pa.Table:
    columns = {
        "id": pa.array(["a", "b"]),
        "vector": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        "text": pa.array(["words", None]),
        "metadata": pa.array(['{"n":1,"d":{"$date":"2024-05-01T12:00:00.000000Z"}}', None]),
        "year": pa.array([2024, None], pa.int64()),
        "tags": pa.array([["x"], []], pa.list_(pa.string())),
        "seen": pa.array([datetime(2024, 1, 1, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
    }
    columns.update(changes)
    return pa.table({name: column for name, column in columns.items() if column is not None})


def test_columns_become_records() -> None:
    docs = vk.connect("memory://").create_collection(vk.CollectionSpec("a", dimension=2))
    assert docs.upsert(vk.Batch.from_arrow(table())) == vk.WriteResult(written=2)
    a, b = docs.get(["a", "b"], vectors=True)
    assert a == vk.Record(
        "a",
        np.array([1, 2], np.float32),
        "words",
        {
            "n": 1,
            "d": datetime(2024, 5, 1, 12, tzinfo=UTC),
            "year": 2024,
            "tags": ["x"],
            "seen": datetime(2024, 1, 1, tzinfo=UTC),
        },
    )
    assert b == vk.Record("b", np.array([3, 4], np.float32), None, {"tags": []})


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float64()),
        pa.list_(pa.float32()),
        pa.large_list(pa.float64()),
        pa.list_(pa.float64(), 2),
        pa.list_(pa.int64()),
    ],
)
def test_any_list_of_numbers_is_a_vector(kind: pa.DataType) -> None:
    batch = vk.Batch.from_arrow(table(vector=pa.array([[1, 2], [3, 4]], kind)))
    assert batch.vectors.dtype == np.float32
    assert batch.vectors.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_a_chunked_and_sliced_table() -> None:
    whole = pa.concat_tables([table(), table(id=pa.array(["c", "d"]))])
    batch = vk.Batch.from_arrow(whole.slice(1, 2))
    assert batch.ids == ["b", "c"]
    assert batch.vectors.tolist() == [[3.0, 4.0], [1.0, 2.0]]
    batch = vk.Batch.from_arrow(whole.slice(1, 2).to_batches()[0])
    assert batch.ids == ["b"]
    assert batch.vectors.tolist() == [[3.0, 4.0]]


def test_what_is_missing_or_wrong_is_named() -> None:
    with pytest.raises(vk.InvalidArgument, match="no column 'vector'"):
        vk.Batch.from_arrow(table(vector=None))
    with pytest.raises(vk.InvalidRecord) as caught:
        vk.Batch.from_arrow(table(vector=pa.array([[1.0, 2.0], None])))
    assert (caught.value.row, caught.value.field) == (1, "vector")
    with pytest.raises(vk.InvalidRecord) as caught:
        vk.Batch.from_arrow(table(metadata=pa.array(["{}", "[1]"])))
    assert (caught.value.row, caught.value.field) == (1, "metadata")
    docs = vk.connect("memory://").create_collection(vk.CollectionSpec("a", dimension=2))
    with pytest.raises(vk.InvalidRecord) as caught:
        docs.upsert(vk.Batch.from_arrow(table(id=pa.array(["a", None]))))
    assert (caught.value.row, caught.value.field) == (1, "id")
    with pytest.raises(vk.InvalidRecord) as caught:
        docs.upsert(vk.Batch.from_arrow(table(seen=pa.array([datetime(2024, 1, 1), None]))))  # noqa: DTZ001
    assert (caught.value.row, caught.value.field) == (0, "seen")
    assert docs.count() == 0


def test_a_batch_holds_float32_and_refuses_ragged_columns() -> None:
    batch = vk.Batch(["a"], [[1, 2]])
    assert batch.vectors.dtype == np.float32
    assert batch.vectors.flags.c_contiguous
    with pytest.raises(vk.InvalidArgument, match="2 ids and 1 vectors"):
        vk.Batch(["a", "b"], [[1, 2]])
    with pytest.raises(vk.InvalidArgument, match="1 ids and 2 texts"):
        vk.Batch(["a"], [[1, 2]], ["x", "y"])
    with pytest.raises(vk.DimensionMismatch) as caught:
        vk.Batch(["a", "b"], [[1, 2], [1]])
    assert caught.value.row == 1
    with pytest.raises(vk.InvalidArgument, match="not one string"):
        vk.Batch("ab", [[1], [2]])
