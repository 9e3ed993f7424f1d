"""The loss curve: its lines, and the same bytes for the same history."""

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


def draw(path, history=HISTORY, saved_step=20):
    import curve

    title = "tiny, recipe tiny-cpu"
    curve.draw(history, path, title=title, base_eval_loss=7.1, saved_step=saved_step)
    return path.read_bytes()


def test_the_same_history_gives_the_same_file(tmp_path):
    first, second = (draw(tmp_path / name) for name in ("a.png", "b.png"))
    assert first.startswith(b"\x89PNG") and first == second
    other_history = [*HISTORY[:-2], {"step": 20, "eval_loss": 3.0}]
    assert draw(tmp_path / "c.png", other_history) != first


@pytest.mark.parametrize(("saved_step", "label"), [(20, "2.000"), (10, "4.500"), (15, "2.000")])
def test_the_loss_of_the_saved_model_is_written(tmp_path, monkeypatch, saved_step, label):
    from matplotlib import pyplot

    figures = []
    monkeypatch.setattr(pyplot, "close", figures.append)
    draw(tmp_path / "a.png", saved_step=saved_step)
    monkeypatch.undo()
    assert [text.get_text() for text in figures[0].axes[0].texts] == [label]
    pyplot.close(figures[0])


def test_both_losses_are_drawn_and_the_evaluation_starts_at_the_base(tmp_path, monkeypatch):
    from matplotlib import pyplot

    figures = []
    monkeypatch.setattr(pyplot, "close", figures.append)
    draw(tmp_path / "a.png")
    monkeypatch.undo()
    axes = figures[0].axes[0]
    lines = {line.get_label(): list(zip(*line.get_data())) for line in axes.get_lines()}
    assert lines == {
        "training": [(1, 7.0), (10, 4.0), (20, 1.0)],
        "evaluation": [(0, 7.1), (10, 4.5), (20, 2.0)],
    }
    assert axes.get_title(loc="left") == "tiny, recipe tiny-cpu"
    pyplot.close(figures[0])


def test_a_history_without_losses_still_gives_a_picture(tmp_path):
    assert draw(tmp_path / "a.png", []).startswith(b"\x89PNG")
