"""One MLflow run per training: parameters, metrics, files and status; an error of MLflow ends nothing."""

import mlflow
import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

pytestmark = pytest.mark.filterwarnings("ignore")

SETTINGS = {"model": "tiny", "lora": None, "trainer": {"learning_rate": 1e-3, "optim": "x" * 600}}


@pytest.fixture
def no_server(monkeypatch):
    """No server in the environment; afterwards MLflow is as before."""
    # Set before it is deleted, so that monkeypatch restores the variable in any case.
    for name in ("TRACKING_URI", "RUN_ID", "EXPERIMENT_ID", "ALLOW_FILE_STORE"):
        monkeypatch.setenv(f"MLFLOW_{name}", "")
        monkeypatch.delenv(f"MLFLOW_{name}")
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    yield
    mlflow.end_run()
    mlflow.set_tracking_uri(None)


def only_run(folder):
    client = mlflow.MlflowClient(folder.resolve().as_uri())
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(experiments)
    return client, run


def log(tracking, tmp_path, step, **logs):
    state = TrainerState(global_step=step, is_world_process_zero=True)
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    tracking.on_log(args, state, TrainerControl(), logs=logs)


def test_a_local_run_has_parameters_metrics_and_files(no_server, tmp_path):
    from tracking import Tracking

    (tmp_path / "loss.png").write_bytes(b"picture")
    with Tracking(tmp_path / "mlruns", SETTINGS, "a-recipe") as tracking:
        log(tracking, tmp_path, 10, loss=2.0, epoch=1)
        log(tracking, tmp_path, 20, loss=1.0, note="not a number")
        tracking.attach([tmp_path / "loss.png", tmp_path / "missing"])
    client, run = only_run(tmp_path / "mlruns")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "a-recipe")
    assert run.data.params.keys() == {"model", "trainer.learning_rate", "trainer.optim"}
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [(loss.step, loss.value) for loss in losses] == [(10, 2.0), (20, 1.0)]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["loss.png"]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_the_status_says_how_the_run_ended(no_server, tmp_path, error, status):
    from tracking import Tracking

    with pytest.raises(error), Tracking(tmp_path / "mlruns", {}, "a-recipe"):
        raise error
    assert only_run(tmp_path / "mlruns")[1].info.status == status


def test_an_error_of_mlflow_is_printed_once_and_ends_nothing(no_server, tmp_path, capsys):
    from tracking import Tracking

    (tmp_path / "file").write_text("not a folder")
    with Tracking(tmp_path / "file" / "mlruns", SETTINGS, "a-recipe") as tracking:
        log(tracking, tmp_path, 1, loss=1.0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].endswith("training continues")


def test_the_server_in_the_environment_is_used(no_server, tmp_path, monkeypatch):
    from tracking import Tracking

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "elsewhere").as_uri())
    with Tracking(tmp_path / "mlruns", {}, "a-recipe") as tracking:
        log(tracking, tmp_path, 1, loss=1.0)
    assert not (tmp_path / "mlruns").exists()
    assert only_run(tmp_path / "elsewhere")[1].data.metrics == {"loss": 1.0}


def test_settings_become_parameters_with_dotted_names():
    from tracking import to_params

    settings = {"a": {"b": {"c": 1}, "d": [2, 3]}, "empty": {}, "none": None, "long": "x" * 600}
    assert to_params(settings) == {"a.b.c": "1", "a.d": "[2, 3]", "long": "x" * 500}
