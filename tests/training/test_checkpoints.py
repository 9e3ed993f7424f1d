"""Checkpoints: only complete ones are used, and only those of the same run."""

from pathlib import Path

import pytest
from checkpoints import MARKER, STARTED, Checkpoints, fingerprint, step_of, write_failure_reason
from inputs import TrainError, read_recipe
from small import write_recipe
from training_run import ROWS, TINY_RECIPE

MADE_FROM = {"model": "a", "recipe": "b", "training file": "c", "number of processes": "1"}


def make_checkpoint(
    folder: Path, step: int, complete: bool = True, made_from: dict = MADE_FROM
) -> Checkpoints:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text("weights")
    checkpoints = Checkpoints(folder, made_from)
    if complete:
        checkpoints.mark_complete(step)
    return checkpoints


def test_the_latest_complete_checkpoint_is_used(tmp_path):
    checkpoints = make_checkpoint(tmp_path, 9)
    make_checkpoint(tmp_path, 10)
    make_checkpoint(tmp_path, 11, complete=False)
    (tmp_path / "checkpoint-last").mkdir()
    assert checkpoints.latest_of_this_run() == tmp_path / "checkpoint-10"
    checkpoints.remove_incomplete()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-10",
        "checkpoint-9",
        "checkpoint-last",
    ]


@pytest.mark.parametrize("damage", ["shorter", "missing", "marker"])
def test_a_damaged_checkpoint_is_not_used(tmp_path, damage):
    checkpoints = make_checkpoint(tmp_path, 5)
    file = tmp_path / "checkpoint-5" / "model.safetensors"
    if damage == "shorter":
        file.write_text("wei")
    elif damage == "missing":
        file.unlink()
    else:
        (file.parent / MARKER).write_text("{")
    assert checkpoints.latest_of_this_run() is None


@pytest.mark.finding(
    1,
    "`train.py --checkpoint-dir` is a folder with `checkpoint-N` folders of another program",
    "the run is refused before it starts, and names the folder",
)
def test_a_checkpoint_of_another_program_is_refused_and_stays(train_cli, tmp_path):
    foreign = tmp_path / "checkpoint-7" / "model.safetensors"
    foreign.parent.mkdir()
    foreign.touch()
    finished = train_cli(tmp_path / "out", "--checkpoint-dir", str(tmp_path))
    assert finished.returncode == 1
    problem = "the folder has a checkpoint that train.py did not write"
    fix = "move it, or give another --checkpoint-dir"
    assert finished.stderr == f"train.py: {problem}, {foreign.parent}: {fix}\n"
    assert foreign.exists()


def test_a_checkpoint_that_was_interrupted_is_not_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", MADE_FROM)
    checkpoints.begin(3)
    checkpoints.begin(3)
    checkpoints.refuse_foreign()
    assert checkpoints.latest() is None
    checkpoints.remove_incomplete()
    assert not checkpoints.path_of(3).exists()


def test_a_missing_folder_is_not_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path / "missing", MADE_FROM)
    assert checkpoints.latest_of_this_run() is None
    checkpoints.remove_incomplete()
    checkpoints.remove_all()


def test_remove_all_removes_the_folder_unless_it_has_other_files(tmp_path):
    make_checkpoint(tmp_path / "alone", 5).remove_all()
    assert not (tmp_path / "alone").exists()
    checkpoints = make_checkpoint(tmp_path / "shared", 5)
    (tmp_path / "shared" / "notes.txt").touch()
    checkpoints.remove_all()
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("part", MADE_FROM)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, part):
    make_checkpoint(tmp_path, 5)
    with pytest.raises(TrainError, match=f"was made with another {part}, .*checkpoint-5: "):
        Checkpoints(tmp_path, {**MADE_FROM, part: "other"}).latest_of_this_run()


def test_the_first_checkpoint_of_a_new_run_replaces_those_of_another_run(tmp_path):
    make_checkpoint(tmp_path, 50, made_from={**MADE_FROM, "recipe": "earlier"})
    checkpoints = make_checkpoint(tmp_path, 7)
    assert checkpoints.latest_of_this_run() == tmp_path / "checkpoint-7"


def test_the_fingerprint_depends_on_everything_that_changes_the_weights(tmp_path):
    def of(rows=ROWS, processes=1, **settings):
        path = write_recipe(tmp_path / "small.yaml", **settings)
        return fingerprint(read_recipe(path), rows, processes)

    assert of(save_steps=1, logging_steps=1) == of()
    assert of(learning_rate=1.0)["recipe"] != of()["recipe"]
    assert of(rows=ROWS[1:]) != of()
    assert of(processes=2) != of()


def test_the_fingerprint_of_a_folder_does_not_depend_on_its_path(tmp_path):
    from dataclasses import replace

    recipe = read_recipe(TINY_RECIPE)
    hashes = []
    for name, content in (("a", "{}"), ("b", "{}"), ("c", '{"other": 1}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
        hashes.append(fingerprint(replace(recipe, model=str(tmp_path / name)), ROWS, 1)["model"])
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("file", ["model.safetensors", "adapter_model.safetensors"])
def test_the_fingerprint_of_a_folder_depends_on_its_weights(tmp_path, file):
    from dataclasses import replace

    recipe = read_recipe(TINY_RECIPE)
    for name, content in (("a", b"12"), ("b", b"12"), ("c", b"13")):  # all of them have equal sizes
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(content)
    (tmp_path / "b" / "openvino-cache").touch()  # serving the model may add files
    a, b, c = [
        fingerprint(replace(recipe, model=str(tmp_path / name)), ROWS, 1, tmp_path / name)
        for name in ("a", "b", "c")
    ]
    assert a == b
    assert {part for part in a if a[part] != c[part]} == {"model", "starting adapter"}


def test_other_rows_are_refused_before_anything_is_loaded(train_cli, tmp_path):
    made_from = fingerprint(read_recipe(TINY_RECIPE), ROWS[1:], 1)
    make_checkpoint(tmp_path / "out" / "checkpoints", 5, made_from=made_from)
    finished = train_cli(tmp_path / "out", "--resume")
    assert finished.returncode == 1
    problem = "train.py: the checkpoint was made with another training file, "
    assert finished.stderr.startswith(problem)
    assert len(finished.stderr.splitlines()) == 1


def test_the_step_is_in_the_name(tmp_path):
    assert step_of(Checkpoints(tmp_path, {}).path_of(12)) == 12


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "no space left on device"),
        (OSError(), "oserror"),
        (RuntimeError("PytorchStreamWriter failed: file write failed"), "the disk is full"),
        (RuntimeError("I/O error: StorageFull"), "the disk is full"),
        (RuntimeError("shapes do not match"), None),
    ],
)
def test_errors_about_writing_are_recognized(error, reason):
    assert write_failure_reason(error) == reason


def test_the_file_of_another_node_counts_with_its_full_size(tmp_path):
    """The mount of the main process shows the file of the other node too short, or not at all."""
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.begin(5)
    folder = checkpoints.path_of(5)
    (folder / "late.distcp").write_bytes(b"12")
    own, other = {"late.distcp": 2}, {"late.distcp": 4, "unseen.distcp": 3}
    checkpoints.mark_complete(5, [own, other])
    assert checkpoints.latest() is None
    (folder / STARTED).unlink()
    (folder / "late.distcp").write_bytes(b"1234")
    (folder / "unseen.distcp").write_bytes(b"123")
    assert checkpoints.latest() == folder
