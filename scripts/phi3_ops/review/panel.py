"""A panel: several judges that scored the same answers, their mean, and their agreement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import OpsError
from ..files import write_jsonl
from ..pf import LINE_NUMBER
from .agreement import krippendorff_alpha
from .results import PanelAgreement
from .subjects import JudgeRun, ReviewedRun


def judges_by_label(runs: Sequence[ReviewedRun]) -> dict[str, list[tuple[ReviewedRun, JudgeRun]]]:
    """Return the judges and what they judged. Runs with the same facts are of one judge.

    Different judges of the same label get the name of their run as well. Of several runs of one judge
    over the same answers, the last one counts.
    """
    groups: dict[tuple[tuple[str, str], ...], dict[str, tuple[ReviewedRun, JudgeRun]]] = {}
    for run in runs:
        for judge in run.judges:
            key = tuple(sorted(judge.facts.items()))
            groups.setdefault(key, {})[run.location.name] = (run, judge)
    members = [list(group.values()) for group in groups.values()]
    labels = [group[0][1].label for group in members]
    return {
        label if labels.count(label) == 1 else f"{label} ({group[0][1].name})": group
        for label, group in zip(labels, members)
    }


def panel_scores(run: ReviewedRun, rubric: str) -> dict[int, float]:
    """Return the mean score of the judges of a run by line; empty if it has fewer than two.

    A line that any of them did not score is left out. Otherwise, the mean would depend on which judges
    scored the line.
    """
    scores = [
        judge.scores[rubric]
        for group in judges_by_label([run]).values()
        for _, judge in group
        if rubric in judge.scores
    ]
    if len(scores) < 2:
        return {}
    lines = set.intersection(*(set(each) for each in scores))
    return {line: sum(each[line] for each in scores) / len(scores) for line in sorted(lines)}


def panel_agreements(runs: Sequence[ReviewedRun]) -> list[PanelAgreement]:
    """Return how well the judges agree, for each rubric by which two of them scored an answer."""
    groups = judges_by_label(runs)
    rubrics = dict.fromkeys(
        rubric for group in groups.values() for _, judge in group for rubric in judge.scores
    )
    panels = []
    for rubric in rubrics:
        units: dict[tuple[str, int], list[float]] = {}
        labels = []
        for label, group in groups.items():
            scored = [(run, judge.scores[rubric]) for run, judge in group if rubric in judge.scores]
            labels += [label] if scored else []
            for run, scores in scored:
                for line, score in scores.items():
                    units.setdefault((run.location.name, line), []).append(score)
        alpha = krippendorff_alpha(list(units.values()), groups=[line for _, line in units])
        if alpha.n:
            panels.append(PanelAgreement(rubric, tuple(labels), alpha))
    return panels


def write_panel(file: Path, runs: Sequence[ReviewedRun]) -> list[str]:
    """Write the mean scores of a panel by line as JSONL, and return the rubrics that are in the file.

    Args:
        file: the file; it must not exist.
        runs: the run whose judges are the panel.

    Raises:
        OpsError: there is more than one run, the run has fewer than two judges with scores by the same
            rubric on the same line, or the file exists or cannot be written.
    """
    if len(runs) != 1:
        raise OpsError(f"{len(runs)} runs given", "--panel writes the scores of one run.")
    scores = {panel.rubric: panel_scores(runs[0], panel.rubric) for panel in panel_agreements(runs)}
    rubrics = [rubric for rubric, lines in scores.items() if lines]
    if not rubrics:
        raise OpsError(
            f"{runs[0].title} does not have scores of two judges by the same rubric, or no line that all "
            "judges scored",
            "Let another judge score it: phi3 run --flow judge --run RUN --connection NAME.",
        )
    if file.exists():
        raise OpsError(f"{file} exists already", "Choose another file, or remove it.")
    rows: dict[int, dict[str, float]] = {}
    for rubric in rubrics:
        for line, score in scores[rubric].items():
            rows.setdefault(line, {})[rubric] = score
    write_jsonl(file, [{LINE_NUMBER: line, **rows[line]} for line in sorted(rows)])
    return rubrics
