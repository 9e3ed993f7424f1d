"""One MLflow run a training: parameters, metrics, files and how it ended; never the training's end."""

import mlflow
import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

pytestmark = pytest.mark.filterwarnings("ignore")

PARAMS = {"model": "tiny", "lora": None, "trainer": {"learning_rate": 1e-3, "optim": "x" * 600}}


@pytest.fixture
def local(monkeypatch):
    """No server in the environment, and MLflow as it was afterwards."""
    # Set first, so that what MLflow and the callback set in between is undone.
    for name in ("TRACKING_URI", "RUN_ID", "EXPERIMENT_ID", "ALLOW_FILE_STORE"):
        monkeypatch.setenv(f"MLFLOW_{name}", "")
        monkeypatch.delenv(f"MLFLOW_{name}")
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    yield
    mlflow.end_run()
    mlflow.set_tracking_uri(None)


def only_run(store):
    client = mlflow.MlflowClient(store.resolve().as_uri())
    experiments = [each.experiment_id for each in client.search_experiments()]
    (run,) = client.search_runs(experiments)
    return client, run


def log(tracking, tmp_path, step, **logs):
    state = TrainerState(global_step=step, is_world_process_zero=True)
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    tracking.on_log(args, state, TrainerControl(), logs=logs)


def test_a_run_beside_the_model_has_everything(local, tmp_path):
    from tracking import Tracking

    (tmp_path / "loss.png").write_bytes(b"picture")
    with Tracking(tmp_path / "mlruns", PARAMS, "a-recipe") as tracking:
        log(tracking, tmp_path, 10, loss=2.0, epoch=1)
        log(tracking, tmp_path, 20, loss=1.0, note="no number")
        tracking.attach([tmp_path / "loss.png", tmp_path / "missing"])
    client, run = only_run(tmp_path / "mlruns")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "a-recipe")
    assert run.data.params.keys() == {"model", "trainer.learning_rate", "trainer.optim"}
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [(each.step, each.value) for each in losses] == [(10, 2.0), (20, 1.0)]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["loss.png"]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_how_it_ended_is_kept(local, tmp_path, error, status):
    from tracking import Tracking

    with pytest.raises(error), Tracking(tmp_path / "mlruns", {}, "a-recipe"):
        raise error
    assert only_run(tmp_path / "mlruns")[1].info.status == status


def test_a_refusal_is_said_once_and_ends_nothing(local, tmp_path, monkeypatch, capsys):
    from tracking import Tracking

    (tmp_path / "file").write_text("not a folder")
    with Tracking(tmp_path / "file" / "mlruns", PARAMS, "a-recipe") as tracking:
        log(tracking, tmp_path, 1, loss=1.0)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].endswith("training goes on")


def test_a_server_that_the_environment_names_is_used(local, tmp_path, monkeypatch):
    from tracking import Tracking

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "elsewhere").as_uri())
    with Tracking(tmp_path / "mlruns", {}, "a-recipe") as tracking:
        log(tracking, tmp_path, 1, loss=1.0)
    assert not (tmp_path / "mlruns").exists()
    assert only_run(tmp_path / "elsewhere")[1].data.metrics == {"loss": 1.0}
