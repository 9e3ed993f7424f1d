"""The loss curve's picture: what it shows, and the same bytes for the same history."""

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")

HISTORY = [
    {"step": 1, "loss": 7.0, "learning_rate": 0.0},
    {"step": 10, "loss": 4.0, "learning_rate": 1e-3},
    {"step": 10, "eval_loss": 4.5},
    {"step": 20, "loss": 1.0, "learning_rate": 0.0},
    {"step": 20, "eval_loss": 2.0},
    {"step": 20, "train_loss": 4.0},
]


def draw(path, history=HISTORY):
    import curve

    curve.draw(history, path, title="tiny, recipe tiny-cpu", base_eval_loss=7.1)
    return path.read_bytes()


def test_the_same_history_gives_the_same_file(tmp_path):
    first, again = (draw(tmp_path / name) for name in ("a.png", "b.png"))
    assert first.startswith(b"\x89PNG") and first == again
    other = [*HISTORY[:-2], {"step": 20, "eval_loss": 3.0}]
    assert draw(tmp_path / "c.png", other) != first


def test_it_shows_both_losses_from_the_base_on(tmp_path, monkeypatch):
    from matplotlib import pyplot

    shown = []
    monkeypatch.setattr(pyplot, "close", shown.append)
    draw(tmp_path / "a.png")
    monkeypatch.undo()
    losses = shown[0].axes[0]
    lines = {line.get_label(): list(zip(*line.get_data())) for line in losses.get_lines()}
    assert lines == {
        "training": [(1, 7.0), (10, 4.0), (20, 1.0)],
        "evaluation": [(0, 7.1), (10, 4.5), (20, 2.0)],
    }
    assert losses.get_title(loc="left") == "tiny, recipe tiny-cpu"
    pyplot.close(shown[0])


def test_a_history_without_losses_shows_the_bases(tmp_path):
    assert draw(tmp_path / "a.png", []).startswith(b"\x89PNG")
