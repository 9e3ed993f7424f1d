"""train.py replaces only what it or `phi3 finetune` wrote."""

import json

import ownership
import pytest
from inputs import TrainError
from training_run import TRAINING

from phi3_ops.files.ownership import begin_writing, find_foreign_file, finish_writing, read_marker

NAMES = ("model", "metrics.json")


def write(folder, text="written"):
    """Write a result into a folder."""
    (folder / "model" / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "sub" / "weights").write_text(text)
    (folder / "metrics.json").write_text(text)


@pytest.mark.finding(
    1,
    "`train.py --output-dir` is a folder with a `model/` or `metrics.json` of another program",
    "the run is refused before it starts, and names the file",
)
@pytest.mark.parametrize("foreign", ["model/other", "metrics.json", "mlflow"])
def test_a_file_of_another_program_is_not_replaced(train_cli, tmp_path, foreign):
    file = tmp_path / foreign
    file.parent.mkdir(exist_ok=True)
    file.write_text("precious")
    finished = train_cli(tmp_path)
    assert finished.returncode == 1
    problem = "the output folder has a file that train.py did not write"
    fix = "move it, or give another --output-dir"
    assert finished.stderr == f"train.py: {problem}, {file}: {fix}\n"
    assert file.read_text() == "precious"


def test_a_link_in_place_of_a_result_is_not_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TrainError, match="did not write"):
        ownership.refuse_foreign_files(tmp_path, NAMES)


def test_an_own_result_is_replaced_and_a_file_that_was_added_to_it_is_not(tmp_path):
    ownership.begin_writing(tmp_path, NAMES)
    write(tmp_path)
    ownership.finish_writing(tmp_path, NAMES)
    (tmp_path / "notes").touch()
    (tmp_path / "model" / "openvino-fp32-0123456789abcdef").mkdir()
    (tmp_path / "model" / "openvino-fp32-0123456789abcdef" / "serving.json").touch()
    ownership.refuse_foreign_files(tmp_path, NAMES)
    (tmp_path / "model" / "notes").touch()
    with pytest.raises(TrainError, match="notes"):
        ownership.refuse_foreign_files(tmp_path, NAMES)


def test_the_result_of_a_run_that_was_killed_while_it_wrote_is_replaced(tmp_path):
    ownership.begin_writing(tmp_path, NAMES)
    write(tmp_path)
    ownership.refuse_foreign_files(tmp_path, NAMES)


def test_train_and_finetune_read_each_others_markers(tmp_path):
    ownership.begin_writing(tmp_path, NAMES)
    write(tmp_path)
    ownership.finish_writing(tmp_path, NAMES)
    assert find_foreign_file(tmp_path, NAMES) is None
    marker = read_marker(tmp_path)
    assert marker.files == {"metrics.json", "model/sub/weights"}
    assert marker.folders == {"model", "model/sub"}
    begin_writing(tmp_path, ["model", "logs"])
    ownership.refuse_foreign_files(tmp_path, [*NAMES, "logs"])
    ownership.finish_writing(tmp_path, NAMES)
    assert read_marker(tmp_path).unfinished == {"logs"}
    finish_writing(tmp_path, [*NAMES, "logs"])
    ownership.refuse_foreign_files(tmp_path, NAMES)
    assert read_marker(tmp_path).id == marker.id


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"made by": "x"}', "[" * 100_000])
def test_a_marker_that_is_not_valid_lists_nothing(tmp_path, content):
    write(tmp_path)
    (tmp_path / ownership.MARKER_FILE).write_text(content)
    with pytest.raises(TrainError, match="did not write"):
        ownership.refuse_foreign_files(tmp_path, NAMES)


def test_a_linked_marker_is_not_read(tmp_path):
    write(tmp_path)
    marker = {"made by": "phi3", "id": "0" * 32, "files": [], "folders": [], "connections": {}}
    (tmp_path / "theirs").write_text(json.dumps({**marker, "unfinished": list(NAMES)}))
    (tmp_path / ownership.MARKER_FILE).symlink_to(tmp_path / "theirs")
    with pytest.raises(TrainError, match="did not write"):
        ownership.refuse_foreign_files(tmp_path, NAMES)


def test_the_marker_has_the_name_that_finetune_uses():
    from phi3_ops.files import ownership as package
    from phi3_ops.models import EXPORT_NAMES

    assert ownership.MARKER_FILE == package.MARKER_FILE
    assert ownership.CACHES.pattern == EXPORT_NAMES
    assert "phi3_ops" not in {
        line.split()[1].partition(".")[0]
        for line in (TRAINING / "ownership.py").read_text().splitlines()
        if line.startswith(("import ", "from "))
    }
