"""The document and the table of a sweep."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

from sweep_results import FAILED, PRICE, sweep_result

COLUMNS = [0.0, 1.0, None, 0.0], [1.0, 1.0, 1.0, FAILED]


def test_the_document_is_json(tmp_path):
    result = sweep_result(tmp_path, *COLUMNS)
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["schema"] == 1
    assert document["metrics"] == {"score": True}
    assert [cell["letter"] for cell in document["cells"]] == ["A", "B"]
    assert document["cells"][0]["scores"]["score"]["unscored"] == 1
    assert document["differences"][0]["cell"] == "B"
    assert document["decision"]["winner"] is None


def test_the_table_has_a_row_for_each_cell(tmp_path):
    fields = {"connections": ["c"], "prices": {"c": PRICE}}
    result = sweep_result(tmp_path, *COLUMNS, names=['a "b",c'], **fields)
    first, second = csv.DictReader(io.StringIO(result.to_csv()))
    assert (first["cell"], first["prompt"], first["parameter t"]) == ("A", 'a "b",c', "0.0")
    assert (
        first["score difference"] == "" and float(second["score difference"]) == 0.3333333333333333
    )
    assert second["failed"] == "1" and float(second["cost"]) == 0.006


def test_parameters_do_not_replace_other_columns_of_the_table(tmp_path):
    result = sweep_result(tmp_path, *COLUMNS)
    parameters = {"prompt": "Hello", "cost": 3}
    cells = [replace(cell, parameters=parameters, cost=0.5) for cell in result.cells]
    (row, _) = csv.DictReader(io.StringIO(replace(result, cells=cells).to_csv()))
    assert (row["prompt"], row["cost"]) == ("p0", "0.5")
    assert (row["parameter prompt"], row["parameter cost"]) == ("Hello", "3")
