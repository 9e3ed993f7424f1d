"""Metrics: means and sums over resumed runs, and metrics.json."""

import json
from dataclasses import asdict

import metrics
import pytest


def test_means_and_sums_include_the_steps_before_a_resume():
    history = [
        {"step": 4, "loss": 3.0, "num_tokens": 40},
        {"step": 6, "loss": 2.0, "num_tokens": 60},
        # The run resumed here: TRL counts from 0 again.
        {"step": 8, "loss": 1.0, "num_tokens": 20},
        {"step": 8, "eval_loss": 9.0},
    ]
    assert metrics.total_tokens(history) == 80
    assert metrics.mean_loss(history) == pytest.approx((4 * 3 + 2 * 2 + 2 * 1) / 8)


def test_the_last_loss_is_that_of_the_last_log_entry():
    history = [{"step": 1, "loss": 5.0}, {"step": 4, "loss": 0.5}, {"step": 4, "eval_loss": 1.0}]
    assert metrics.last_loss(history) == 0.5


def test_the_evaluation_of_a_step_is_found():
    history = [
        {"step": 1, "eval_loss": 3.0},
        {"step": 2, "loss": 1.0},
        {"step": 2, "eval_loss": 2.0},
    ]
    assert metrics.evaluation_at(history, 2) == {"step": 2, "eval_loss": 2.0}
    assert metrics.evaluation_at(history, 1) == {"step": 1, "eval_loss": 3.0}
    assert metrics.evaluation_at([*history, {"step": 3, "train_loss": 1.0}], 3) is None


def test_the_base_has_the_first_evaluation_loss():
    history = [{"step": 0, "eval_loss": 7.0}, {"step": 1, "loss": 5.0}, {"step": 1, "eval_loss": 2}]
    assert metrics.base_eval_loss(history) == 7.0


def test_the_speed_is_a_median_without_the_warm_up():
    history = [{"mfu": value} for value in (0.1, 0.4, 0.5, 0.9)]
    assert metrics.median_after_first([*history, {"loss": 1.0}], "mfu") == 0.5
    assert metrics.median_after_first(history[:1], "mfu") is None


def test_metrics_are_written_as_json(tmp_path):
    values = metrics.Metrics(
        seconds=3.5, train_seconds=1.25, steps=60, saved_step=60, resumed_from=None, epochs=3.0,
        tokens=792, train_loss=1.5, last_train_loss=0.5, eval_loss=1.0, perplexity=2.7,
        base_eval_loss=7.0, base_perplexity=1096.6, general_rows=0,
        general_loss=None, base_general_loss=None, train_rows=12, cut_train_rows=0,
    dropped_train_rows=0, eval_rows=4, cut_eval_rows=0, dropped_eval_rows=0, model="tiny",
        parameters=443904, device="cpu",
        attention="sdpa", processes=1, threads=1, seed=0, recipe="tiny-cpu", versions={"trl": "1"},
    )  # fmt: skip
    metrics.write_metrics(values, tmp_path / "metrics.json")
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written == asdict(values) | {"train_files": []}


def test_only_installed_packages_have_a_version(monkeypatch):
    monkeypatch.setattr(metrics, "PACKAGES", ("torch", "a-package-that-does-not-exist"))
    assert metrics.package_versions().keys() == {"torch"}
