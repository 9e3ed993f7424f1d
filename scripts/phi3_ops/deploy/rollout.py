"""Bring a deployment behind an endpoint without ever serving less than before.

The live endpoint is never deleted to redeploy. A new deployment gets no traffic until it has answered a
smoke test through the `azureml-model-deployment` header. Then the traffic moves in steps, each followed
by another test. The old deployment is deleted last. Every failure puts the traffic back.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from phi3_tools import EntraAuth, KeyAuth
from phi3_tools.client import token_scope

from .. import paths
from ..azure import (
    Cloud,
    EndpointConfig,
    Plan,
    Step,
    find_resource,
    retry_while_roles_spread,
    state_text,
)
from ..errors import OpsError
from ..hashing import sha256_hex
from ..waiting import WaitTimeoutError, wait_until
from .autoscale import Autoscale

LOG_LINES = 60
SUCCEEDED = "Succeeded"
ENDED = (SUCCEEDED, "Failed", "Canceled")
POLL_S = 5.0
SETTLE_S = 3600.0  # the deployment of a large model may take most of it
CANARY = (10, 50, 100)


@dataclass(frozen=True)
class RolloutOptions:
    """How the traffic moves to the new deployment.

    Attributes:
        canary: rising percentages of traffic for the new deployment; the last one is 100.
        mirror: percentage of the live traffic that is copied to the new deployment before it gets any, 0
            to 50; the answers to the copies are dropped.
        soak_s: seconds to wait after each step before the next test.
        drain_s: seconds that an old deployment has to finish its requests before it is deleted.
        keep_old: do not delete the deployments that have no traffic any more.
    """

    canary: Sequence[int] = CANARY
    mirror: int = 0
    soak_s: float = 0.0
    drain_s: float = 30.0
    keep_old: bool = False

    def __post_init__(self) -> None:
        rising = list(self.canary) == sorted(set(self.canary))
        if not self.canary or not rising or self.canary[-1] != 100 or self.canary[0] < 1:
            raise OpsError(
                f"canary steps {list(self.canary)}", "Give rising percentages up to 100."
            )
        if not 0 <= self.mirror <= 50:
            raise OpsError(f"mirror {self.mirror} %", "Give 0 to 50.")


@dataclass(frozen=True)
class SmokeAnswer:
    """The answer to a smoke test, and the seconds that it took."""

    text: str
    latency_s: float


class Deployment(ABC):
    """A model or a flow that `Rollout` brings behind an endpoint.

    Attributes:
        endpoint: configuration of the endpoint.
    """

    endpoint: EndpointConfig

    @property
    @abstractmethod
    def name(self) -> str:
        """The deployment's name: a hash of its content, so that the same content has the same name."""

    @abstractmethod
    def steps(self) -> list[Step]:
        """Return the steps that come before the endpoint."""

    @abstractmethod
    def definition(self) -> AbstractContextManager[Any]:
        """Return a context that gives azure-ai-ml's object; its files exist inside the context only."""

    @abstractmethod
    def ask(
        self, scoring_uri: str, auth: KeyAuth | EntraAuth, deployment: str | None
    ) -> SmokeAnswer:
        """Ask the endpoint one question.

        Args:
            scoring_uri: the endpoint's scoring URI.
            auth: credentials for the endpoint.
            deployment: name of the deployment to ask; None follows the traffic rules.

        Raises:
            OpsError: the endpoint did not answer.
        """


class Rollout:
    """Brings a deployment behind its endpoint, step by step.

    Args:
        cloud: clients and configuration.
        options: how the traffic moves.
        deployment: the model or flow to deploy.
        print_line: prints one line of progress.
    """

    def __init__(
        self,
        cloud: Cloud,
        options: RolloutOptions,
        deployment: Deployment,
        print_line: Callable[[str], None],
    ) -> None:
        self.cloud = cloud
        self.options = options
        self.deployment = deployment
        self.config = deployment.endpoint
        self.print_line = print_line

    @property
    def name(self) -> str:
        """The name of the new deployment."""
        return self.deployment.name

    def plan(self) -> Plan:
        """Return the steps: prerequisites, endpoint, deployment, traffic, removal of old deployments."""
        size = f"{self.config.size} x {self.config.first_instances}"
        old = [] if self.options.keep_old else self._others()
        steps = [
            *self.deployment.steps(),
            Step(
                f"endpoint {self.config.name}",
                self._has_endpoint,
                self._create_endpoint,
                usual="1 to 5 min",
            ),
            Step(
                f"deployment {self.name} ({size})",
                self._has_deployment,
                self._create_deployment,
                usual="10 to 20 min, with a new image 20 to 40 min",
            ),
            Step(
                f"traffic to {self.name}",
                self._has_traffic,
                self._move_traffic,
                verb="move",
                usual="1 to 5 min",
            ),
        ]
        steps += self._autoscale_steps()
        if old:
            what = f"old deployments: {', '.join(old)}"
            steps.append(Step(what, lambda: not self._others(), self._remove_idle, "remove"))
        return Plan("deploy", steps)

    def _autoscale_steps(self) -> list[Step]:
        setting = Autoscale(self.cloud, self.config.name, self.name)
        if self.config.autoscale is not None:
            return [setting.step(self.config.autoscale)]
        removal = setting.removal()
        return [removal] if removal else []

    # -- endpoint ------------------------------------------------------------------------------------

    def _endpoint(self) -> Any:
        """Return the endpoint, or None."""
        return find_resource(lambda: self.cloud.ml.online_endpoints.get(self.config.name))

    def _has_endpoint(self) -> bool:
        endpoint = self._endpoint()
        return endpoint is not None and endpoint.provisioning_state == SUCCEEDED

    def _create_endpoint(self) -> None:
        present = wait_until_settled(self._endpoint)
        if present is not None and present.provisioning_state == SUCCEEDED:
            return  # an interrupted run began its creation
        from azure.ai.ml import load_online_endpoint

        endpoint = load_online_endpoint(paths.AZURE / "endpoint.yml")
        endpoint.name = self.config.name
        endpoint.auth_mode = {"key": "key", "entra": "aad_token"}[self.config.auth]
        endpoint.tags = self.cloud.tags()
        if present is not None:  # its last change failed, but it may be serving: keep its traffic
            endpoint.traffic, endpoint.mirror_traffic = present.traffic, present.mirror_traffic
        endpoint.identity = self.cloud.user_assigned_identity()
        self.cloud.ml.online_endpoints.begin_create_or_update(endpoint).result()

    # -- deployment ----------------------------------------------------------------------------------

    def _deployments(self) -> dict[str, Any]:
        """Return the endpoint's deployments by name."""
        list_all = self.cloud.ml.online_deployments.list
        deployments = find_resource(lambda: list(list_all(self.config.name))) or []
        return {deployment.name: deployment for deployment in deployments}

    def _has_deployment(self) -> bool:
        deployment = self._deployments().get(self.name)
        return deployment is not None and deployment.provisioning_state == SUCCEEDED

    def _create_deployment(self) -> None:
        present = wait_until_settled(lambda: self._deployments().get(self.name))
        if present is not None and present.provisioning_state == SUCCEEDED:
            return  # an interrupted run began its creation
        with self.deployment.definition() as definition:
            try:
                begin = self.cloud.ml.online_deployments.begin_create_or_update
                retry_while_roles_spread(self.cloud, lambda: begin(definition).result())
            except Exception:
                self._print_logs()
                self._remove_failed()
                raise

    def _remove_failed(self) -> None:
        """Delete the failed deployment, which is paid for and whose name the next run needs.

        If that fails as well, a line says so: the error to report is the one that led here.
        """
        try:
            if self.name not in self._traffic():
                self._delete(self.name)
        except Exception as error:
            self.print_line(
                f"  the deployment {self.name} could not be deleted and is still paid for: {error}. "
                "Run `phi3 deploy` again, or `phi3 down --endpoint-only`"
            )

    def _print_logs(self) -> None:
        try:
            logs = self.cloud.ml.online_deployments.get_logs(
                self.name, self.config.name, lines=LOG_LINES
            )
        except Exception:  # the logs explain another error, which this one must not replace
            return
        for line in str(logs).splitlines()[-LOG_LINES:]:
            self.print_line(f"  | {line}")

    def _delete(self, name: str) -> None:
        if name in self._deployments():
            self.cloud.ml.online_deployments.begin_delete(name, self.config.name).result()

    # -- traffic -------------------------------------------------------------------------------------

    def _traffic(self) -> dict[str, int]:
        """Return the deployments that have traffic, with their percentages."""
        endpoint = self._endpoint()
        traffic = dict(endpoint.traffic or {}) if endpoint is not None else {}
        return {name: share for name, share in traffic.items() if share}

    def _has_traffic(self) -> bool:
        return self._traffic() == {self.name: 100}

    def _move_traffic(self) -> None:
        before = self._traffic()
        try:
            self._smoke_test(self.name)
            if self.options.mirror and before:
                self._set_traffic(before, mirror={self.name: self.options.mirror})
                self._smoke_test(self.name)
            for share in self.options.canary if before else (100,):
                self._set_traffic(split_traffic(before, self.name, share))
                self._smoke_test(None if share == 100 else self.name)
        except BaseException:
            self._restore_traffic(before)
            self._print_logs()
            raise

    def _restore_traffic(self, before: dict[str, int]) -> None:
        try:
            # The traffic of the endpoint does not show a change that is still under way.
            endpoint = wait_until_settled(self._endpoint)
            if self._traffic() != before or endpoint.mirror_traffic:
                self.print_line(f"  putting the traffic back: {before or 'none'}")
                self._set_traffic(before)
        except Exception as error:  # the error to raise is the one that led here
            self.print_line(f"  the traffic could not be put back: {error}")

    def _set_traffic(self, traffic: dict[str, int], mirror: dict[str, int] | None = None) -> None:
        endpoint = wait_until_settled(self._endpoint)
        # A deployment that is left out keeps its share, so every deployment is named.
        endpoint.traffic = {name: traffic.get(name, 0) for name in self._deployments()}
        endpoint.mirror_traffic = mirror or {}
        self.cloud.ml.online_endpoints.begin_create_or_update(endpoint).result()
        shares = ", ".join(f"{name} {share} %" for name, share in traffic.items()) or "none"
        mirrored = f", mirrored to {self.name}" if mirror else ""
        self.print_line(f"  traffic: {shares}{mirrored}")

    def _smoke_test(self, deployment: str | None) -> None:
        """Ask one question of a deployment, or of the endpoint if `deployment` is None.

        Raises:
            OpsError: there was no answer, or an empty one.
        """
        if self.options.soak_s:
            time.sleep(self.options.soak_s)
        answer = self.deployment.ask(str(self._endpoint().scoring_uri), self._auth(), deployment)
        if not answer.text.strip():
            raise OpsError(f"{deployment or 'the endpoint'} gave an empty answer")
        target = deployment or "endpoint"
        self.print_line(f"  {target} answers in {answer.latency_s:.2f} s: {answer.text!r}")

    def _auth(self) -> KeyAuth | EntraAuth:
        """Return the credentials for the endpoint."""
        if self.config.auth == "entra":
            return EntraAuth(token_scope(self._endpoint().scoring_uri), self.cloud.credential)
        return KeyAuth(self.cloud.ml.online_endpoints.get_keys(self.config.name).primary_key)

    # -- old deployments -----------------------------------------------------------------------------

    def _others(self) -> list[str]:
        return sorted(name for name in self._deployments() if name != self.name)

    def _remove_idle(self) -> None:
        time.sleep(self.options.drain_s)
        traffic = self._traffic()
        for name in self._others():
            if name not in traffic:
                Autoscale(self.cloud, self.config.name, name).delete()
                self._delete(name)


def content_name(parts: Sequence[str]) -> str:
    """Return the name of a deployment: a hash of the texts that it consists of."""
    return f"d-{content_hash(parts)}"


def content_hash(parts: Sequence[str]) -> str:
    """Return the start of a SHA-256 over some texts, in hex."""
    return sha256_hex(json.dumps(parts).encode())[:10]


def wait_until_settled(get: Callable[[], Any]) -> Any:
    """Return the resource that `get` reads, or None, once no change of it is under way.

    Azure refuses a change during another one, which an interrupted run may have begun.

    Raises:
        OpsError: the resource is still changing after `SETTLE_S`.
    """
    try:
        return wait_until(
            get,
            lambda resource: resource is None or resource.provisioning_state in ENDED,
            timeout_s=SETTLE_S,
            poll_s=POLL_S,
        )
    except WaitTimeoutError as error:
        state = state_text(error.last.provisioning_state)
        what = f"{error.last.name} has been {state} for {SETTLE_S / 60:.0f} minutes"
        fix = "Look at it in the studio; run this again when the change has ended."
        raise OpsError(what, fix) from error


def split_traffic(before: dict[str, int], new: str, share: int) -> dict[str, int]:
    """Return the traffic with a share for the new deployment, the rest divided as before.

    Args:
        before: deployment -> percentage.
        new: name of the new deployment.
        share: percentage for the new deployment, or a little more: the other shares are rounded down.

    Returns:
        Deployment -> percentage, integers that sum to 100.
    """
    others = {name: value for name, value in before.items() if name != new}
    total = sum(others.values())
    if not total or share == 100:
        return {new: 100}
    rest = 100 - share
    traffic = {name: rest * value // total for name, value in others.items()}
    traffic[new] = 100 - sum(traffic.values())
    return traffic
