"""Promotion of a locked flow from one environment to another, behind a comparison of runs.

An environment is a configuration: `dev` is `phi3.dev.yaml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import paths
from ..azure import Cloud, load_config
from ..errors import OpsError
from ..flows import FlowState
from ..installation import install_command
from ..runs import SHORT_HASH, THRESHOLDS_FILE, ScoredRun, load_scored_run, url_without_secrets
from .connection_fields import shared_connection
from .project import FoundryProject
from .stage import display_name

if TYPE_CHECKING:
    from ..comparison import Comparison

ENDPOINT_FACT = ".connection.endpoint"  # suffix of the fact that names the endpoint of a node


@dataclass(frozen=True)
class Gate:
    """The comparison that a version must pass before it is promoted.

    Attributes:
        baseline: the run that the version must not be worse than: a run in promptflow's store, or a file.
        candidate: the version's own run against the target environment, in promptflow's store.
        data: the data file; None means the one that the runs record.
        thresholds: margins, each of which is a gate; None means those next to the flow of the scores.
    """

    baseline: str
    candidate: str
    data: Path | None = None
    thresholds: Path | None = None


def project_for_gate(environment: str) -> FoundryProject:
    """Return the project of an environment.

    Raises:
        OpsError: `phi3.ENVIRONMENT.yaml` does not exist or is not valid.
    """
    return FoundryProject(Cloud(load_config(Path(f"phi3.{environment}.yaml"))))


def refuse_unfit_version(state: FlowState, source: FoundryProject, target: FoundryProject) -> None:
    """Raise OpsError if both environments are the same, or the version is not uploaded to the source."""
    if source.lock_key == target.lock_key:
        fix = "If they are set, AZURE_SUBSCRIPTION_ID and similar variables override both files."
        raise OpsError(f"both environments are the workspace {source.lock_key}", fix)
    if source.find(state) is None:
        what = f"{display_name(state)} is not in {source.workspace}"
        raise OpsError(
            what, "Run `phi3 flow upload` for that environment first, and test it there."
        )


def judge_gate(state: FlowState, target: FoundryProject, gate: Gate) -> Comparison:
    """Compare the version's run in an environment with the baseline.

    Raises:
        OpsError: the runs cannot be compared, the candidate is not a run of this version there, or the
            packages of the extra `[eval]` are not installed.
    """
    try:
        from ..comparison import ALL_METRICS, ComparisonSettings, compare_runs, load_thresholds
    except ModuleNotFoundError as error:
        what = f"the package {error.name} is not installed"
        raise OpsError(what, install_command("azure", "eval")) from error
    baseline, candidate = (
        load_scored_run(name, gate.data) for name in (gate.baseline, gate.candidate)
    )
    refuse_other_run(state, target, candidate)
    file = gate.thresholds or baseline.thresholds or paths.FLOWS / "eval" / THRESHOLDS_FILE
    settings = ComparisonSettings(gates={ALL_METRICS: None})
    return compare_runs([baseline, candidate], load_thresholds(file), settings)


def refuse_other_run(state: FlowState, target: FoundryProject, run: ScoredRun) -> None:
    """Raise OpsError unless a run records this version's content and the environment's endpoints."""
    name = display_name(state)
    fix = f"Run {name} with `phi3 run` against the environment's endpoint, score it, and give its name."
    facts = run.asked.facts if run.asked else run.scored.facts
    content = facts.get("flow content")
    if content != state.sha256[:SHORT_HASH]:
        reason = f"has other content ({content})" if content else "does not record its flow"
        raise OpsError(f"the run {run.name} {reason}; {name} is {state.sha256[:SHORT_HASH]}", fix)
    for node, connection in state.flow.connection_names({}).items():
        values = shared_connection(target.cloud, connection).all
        expected = url_without_secrets(values.get("endpoint", ""))
        recorded = facts.get(f"{node}{ENDPOINT_FACT}")
        if recorded != expected:
            used = f"used {recorded}" if recorded else "does not record its endpoint"
            what = (
                f"the run {run.name} {used}; the connection {connection!r} in {target.workspace} is"
            )
            raise OpsError(f"{what} {expected or 'without an endpoint'}", fix)


def gate_reasons(comparison: Comparison) -> list[str]:
    """Return one line per gated score with its verdict, and one with the verdict on all of them."""
    lines = [
        f"gate {entry.metric}: {entry.gate.verdict} ({entry.gate.reason})"
        for entry in comparison.comparisons
        if entry.gate
    ]
    return [*lines, f"gate: {comparison.gate.verdict}"] if comparison.gate else lines
