"""A flow's locked version from one environment to another, behind a comparison that was run there.

An environment is a configuration: `dev` is `phi3.dev.yaml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import paths
from ..azure import Cloud, load_config
from ..comparison import ALL_METRICS, Comparison, ComparisonSettings, compare_runs, load_thresholds
from ..errors import OpsError
from ..flows import FlowState
from ..runs import SHORT_HASH, THRESHOLDS_FILE, ScoredRun, load_scored_run, url_without_secrets
from .check import check_with_shared_connection
from .upload import FoundryProject, display_name

ENDPOINT = ".connection.endpoint"  # how a fact of a run ends that names what a node asked


@dataclass(frozen=True)
class Gate:
    """What has to be shown of a version in the environment that it goes to.

    Attributes:
        baseline: the run that it may not be worse than: a name in prompt flow's store, or a file.
        candidate: the version's own run there, in prompt flow's store.
        data: the data file; the one that the runs record when left out.
        thresholds: margins, each of which is a gate; those beside the flow of the scores when left out.
    """

    baseline: str
    candidate: str
    data: Path | None = None
    thresholds: Path | None = None


def project_for_gate(environment: str) -> FoundryProject:
    """The project of an environment.

    Raises:
        OpsError: there is no `phi3.ENVIRONMENT.yaml`, or it is wrong.
    """
    return FoundryProject(Cloud(load_config(Path(f"phi3.{environment}.yaml"))))


def refuse_unfit_run(state: FlowState, source: FoundryProject, target: FoundryProject) -> None:
    """Raises OpsError where both environments are one, or the version is not in the first."""
    if source.place == target.place:
        fix = "Where they are set, AZURE_SUBSCRIPTION_ID and the like win over both files."
        raise OpsError(f"both environments are the workspace {source.place}", fix)
    if source.find(state) is None:
        where = source.cloud.config.azure.workspace
        what = f"{display_name(state)} is not in {where}"
        raise OpsError(what, "Promote what was tried: `phi3 flow upload` it there first.")


def judge_gate(state: FlowState, target: FoundryProject, gate: Gate) -> Comparison:
    """Compare the version's run in an environment with the baseline.

    Raises:
        OpsError: the runs cannot be compared, or the candidate is no run of this version there.
    """
    baseline, candidate = (
        load_scored_run(name, gate.data) for name in (gate.baseline, gate.candidate)
    )
    _refuse_other_run(state, target, candidate)
    file = gate.thresholds or baseline.thresholds or paths.FLOWS / "eval" / THRESHOLDS_FILE
    settings = ComparisonSettings(gates={ALL_METRICS: None})
    return compare_runs([baseline, candidate], load_thresholds(file), settings)


def _refuse_other_run(state: FlowState, target: FoundryProject, run: ScoredRun) -> None:
    """Raises OpsError unless a run records this version's content, and the environment's endpoints."""
    name = display_name(state)
    fix = f"Run {name} with `phi3 run` against the environment's endpoint, score it, and name it."
    facts = run.asked.facts if run.asked else run.scored.facts
    content = facts.get("flow content")
    if content != state.sha256[:SHORT_HASH]:
        told = f"is of other content ({content})" if content else "does not say what flow it is of"
        raise OpsError(f"the run {run.name} {told}; {name} is {state.sha256[:12]}", fix)
    for node, connection in state.flow.connection_names({}).items():
        fields = check_with_shared_connection(target.cloud, connection)
        plain = {**fields["configs"], **fields["secrets"]}
        there = url_without_secrets(plain.get("endpoint", ""))
        asked = facts.get(f"{node}{ENDPOINT}", "no endpoint that it recorded")
        if asked != there:
            where = target.cloud.config.azure.workspace
            what = f"the run {run.name} asked {asked}; the connection {connection!r} in {where} is"
            raise OpsError(f"{what} {there or 'none'}", fix)


def gate_reasons(comparison: Comparison) -> list[str]:
    """Return one line per gated score with its verdict, and one with the verdict on all of them."""
    lines = [
        f"gate {entry.metric}: {entry.gate.verdict} ({entry.gate.reason})"
        for entry in comparison.comparisons
        if entry.gate
    ]
    return [*lines, f"gate: {comparison.gate.verdict}"] if comparison.gate else lines
