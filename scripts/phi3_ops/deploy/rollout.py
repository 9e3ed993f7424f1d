"""A deployment brought behind an endpoint, with never less serving than before.

The live endpoint is never deleted to redeploy. A new deployment gets no traffic until it has answered a
smoke test through the `azureml-model-deployment` header; then traffic moves in steps, each followed by
another test; the old deployment goes last. Whatever goes wrong puts the traffic back.
"""

from __future__ import annotations

import contextlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from phi3_tools import EntraAuth, KeyAuth
from phi3_tools.client import token_scope

from .. import paths
from ..azure import Cloud, EndpointConfig, Plan, Step, find_resource
from ..errors import OpsError
from ..hashing import sha256_hex
from ..waiting import WaitTimeoutError, wait_until

LOG_LINES = 60
SUCCEEDED = "Succeeded"
ENDED = (SUCCEEDED, "Failed", "Canceled")
POLL_S = 5.0
SETTLE_S = 3600.0  # a deployment of a large model may take most of it
CANARY = (10, 50, 100)


@dataclass(frozen=True)
class RolloutOptions:
    """How to move to the new deployment.

    Attributes:
        job: the job whose model to deploy; None takes the newest that completed.
        canary: percentages of traffic for the new deployment, one after another, the last one 100.
        mirror: percentage of the live traffic copied to the new deployment before it gets any (the
            answers are thrown away), 0 to 50.
        soak_s: seconds to wait after each step before the next test.
        drain_s: seconds that an old deployment is left to finish what it has before it is deleted.
        keep_old: leave the deployments that no longer have traffic.
    """

    job: str | None = None
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


class Rollout(ABC):
    """Brings a deployment behind an endpoint, step by step; subclasses say what is deployed.

    Args:
        cloud: where to.
        options: how.
        say: shows one line of progress.
        config: the endpoint.
    """

    def __init__(
        self,
        cloud: Cloud,
        options: RolloutOptions,
        say: Callable[[str], None],
        config: EndpointConfig,
    ) -> None:
        self.cloud = cloud
        self.options = options
        self.say = say
        self.config = config

    @property
    @abstractmethod
    def name(self) -> str:
        """The deployment's name: the hash of all that it is made of, so that the same is found again."""

    @abstractmethod
    def _made_of(self) -> list[Step]:
        """What must be there before the endpoint."""

    @abstractmethod
    def _definition(self) -> Any:
        """The deployment, as azure-ai-ml has it."""

    @abstractmethod
    def _ask(self, deployment: str | None) -> tuple[str, float]:
        """A question's answer, and the seconds that it took; raises OpsError where there is none."""

    def plan(self) -> Plan:
        """What it is made of, endpoint, deployment, traffic, and the old deployments' end."""
        name, size = self.config.name, f"{self.config.size} x {self.config.instances}"
        old = [] if self.options.keep_old else self._others()
        steps = [
            *self._made_of(),
            Step(f"endpoint {name}", self._has_endpoint, self._create_endpoint),
            Step(f"deployment {self.name} ({size})", self._has_deployment, self._create_deployment),
            Step(f"traffic to {self.name}", self._has_traffic, self._move_traffic, verb="move"),
        ]
        if old:
            what = f"old deployments: {', '.join(old)}"
            steps.append(Step(what, lambda: not self._others(), self._remove_idle, "remove"))
        return Plan("deploy", steps)

    # -- endpoint ------------------------------------------------------------------------------------

    def endpoint(self) -> Any:
        """The endpoint, or None."""
        return find_resource(lambda: self.cloud.ml.online_endpoints.get(self.config.name))

    def _has_endpoint(self) -> bool:
        endpoint = self.endpoint()
        return endpoint is not None and endpoint.provisioning_state == SUCCEEDED

    def _create_endpoint(self) -> None:
        there = wait_until_settled(self.endpoint)
        if there is not None and there.provisioning_state == SUCCEEDED:
            return  # begun by a run that was interrupted
        from azure.ai.ml import load_online_endpoint
        from azure.ai.ml.entities import IdentityConfiguration, ManagedIdentityConfiguration

        endpoint = load_online_endpoint(paths.AZURE / "endpoint.yml")
        endpoint.name = self.config.name
        endpoint.auth_mode = {"key": "key", "entra": "aad_token"}[self.config.auth]
        endpoint.tags = self.cloud.tags()
        if there is not None:  # its last change failed, but it may be serving, and is to go on
            endpoint.traffic, endpoint.mirror_traffic = there.traffic, there.mirror_traffic
        identity = f"{self.cloud.group_path}/providers/Microsoft.ManagedIdentity"
        identity += f"/userAssignedIdentities/{self.cloud.config.identity.name}"
        endpoint.identity = IdentityConfiguration(
            type="user_assigned",
            user_assigned_identities=[ManagedIdentityConfiguration(resource_id=identity)],
        )
        self.cloud.ml.online_endpoints.begin_create_or_update(endpoint).result()

    # -- deployment ----------------------------------------------------------------------------------

    def _deployments(self) -> dict[str, Any]:
        found = (
            find_resource(lambda: list(self.cloud.ml.online_deployments.list(self.config.name)))
            or []
        )
        return {deployment.name: deployment for deployment in found}

    def _has_deployment(self) -> bool:
        deployment = self._deployments().get(self.name)
        return deployment is not None and deployment.provisioning_state == SUCCEEDED

    def _create_deployment(self) -> None:
        there = wait_until_settled(lambda: self._deployments().get(self.name))
        if there is not None and there.provisioning_state == SUCCEEDED:
            return  # begun by a run that was interrupted
        deployment = self._definition()
        try:
            self.cloud.ml.online_deployments.begin_create_or_update(deployment).result()
        except Exception:
            self._show_logs()
            # It would go on costing, and its name is taken for the next try. Should that fail as well,
            # the error to tell is the first one.
            with contextlib.suppress(Exception):
                if self.name not in self._traffic():
                    self._delete(self.name)
            raise

    def _show_logs(self) -> None:
        try:
            logs = self.cloud.ml.online_deployments.get_logs(
                self.name, self.config.name, lines=LOG_LINES
            )
        except Exception:  # the logs are help for another error, which must not be lost to this one
            return
        for line in str(logs).splitlines()[-LOG_LINES:]:
            self.say(f"  | {line}")

    def _delete(self, name: str) -> None:
        if name in self._deployments():
            self.cloud.ml.online_deployments.begin_delete(name, self.config.name).result()

    # -- traffic -------------------------------------------------------------------------------------

    def _traffic(self) -> dict[str, int]:
        endpoint = self.endpoint()
        traffic = dict(endpoint.traffic or {}) if endpoint is not None else {}
        return {name: share for name, share in traffic.items() if share}

    def _has_traffic(self) -> bool:
        return self._traffic() == {self.name: 100}

    def _move_traffic(self) -> None:
        before = self._traffic()
        try:
            self._smoke(self.name)
            if self.options.mirror and before:
                self._set(before, mirror={self.name: self.options.mirror})
                self._smoke(self.name)
            for share in self.options.canary if before else (100,):
                self._set(_shared(before, self.name, share))
                self._smoke(None if share == 100 else self.name)
        except BaseException:
            self._restore(before)
            self._show_logs()
            raise

    def _restore(self, before: dict[str, int]) -> None:
        try:
            endpoint = wait_until_settled(
                self.endpoint
            )  # a change under way is not in its traffic yet
            if self._traffic() != before or endpoint.mirror_traffic:
                self.say(f"  putting the traffic back: {before or 'none'}")
                self._set(before)
        except Exception as error:  # the error to raise is the one that led here
            self.say(f"  the traffic could not be put back: {error}")

    def _set(self, traffic: dict[str, int], mirror: dict[str, int] | None = None) -> None:
        endpoint = wait_until_settled(self.endpoint)
        # What is not named keeps its share: so name every deployment.
        endpoint.traffic = {name: traffic.get(name, 0) for name in self._deployments()}
        endpoint.mirror_traffic = mirror or {}
        self.cloud.ml.online_endpoints.begin_create_or_update(endpoint).result()
        shown = ", ".join(f"{name} {share} %" for name, share in traffic.items()) or "none"
        self.say(f"  traffic: {shown}{f', mirrored to {self.name}' if mirror else ''}")

    def _smoke(self, deployment: str | None) -> None:
        """Ask one question, past the traffic rules or along them.

        Raises:
            OpsError: no answer, or an empty one.
        """
        if self.options.soak_s:
            time.sleep(self.options.soak_s)
        text, seconds = self._ask(deployment)
        if not text.strip():
            raise OpsError(f"{deployment or 'the endpoint'} gave an empty answer")
        self.say(f"  {deployment or 'endpoint'} answers in {seconds:.2f} s: {text!r}")

    def _auth(self) -> KeyAuth | EntraAuth:
        """How to sign in to the endpoint."""
        if self.config.auth == "entra":
            return EntraAuth(token_scope(self.endpoint().scoring_uri), self.cloud.credential)
        return KeyAuth(self.cloud.ml.online_endpoints.get_keys(self.config.name).primary_key)

    # -- the old ones --------------------------------------------------------------------------------

    def _others(self) -> list[str]:
        return sorted(name for name in self._deployments() if name != self.name)

    def _remove_idle(self) -> None:
        time.sleep(self.options.drain_s)
        traffic = self._traffic()
        for name in self._others():
            if name not in traffic:
                self._delete(name)


def content_name(parts: Sequence[str]) -> str:
    """A deployment's name, from the texts of all that it is made of."""
    return "d-" + sha256_hex(json.dumps(parts).encode())[:10]


def wait_until_settled(get: Callable[[], Any]) -> Any:
    """What `get` finds once nothing changes it any more: Azure refuses a change during another one,
    which an interrupted run may have begun.

    Raises:
        OpsError: it is still changing after `SETTLE_S`.
    """
    try:
        return wait_until(
            get,
            lambda resource: resource is None or resource.provisioning_state in ENDED,
            timeout_s=SETTLE_S,
            poll_s=POLL_S,
        )
    except WaitTimeoutError as error:
        state = error.last.provisioning_state
        what = f"{error.last.name} has been {state} for {SETTLE_S / 60:.0f} minutes"
        fix = "See it in the studio; run this again when it has ended."
        raise OpsError(what, fix) from error


def _shared(before: dict[str, int], new: str, share: int) -> dict[str, int]:
    """The new deployment's share, and the rest divided as before; whole numbers that sum to 100."""
    others = {name: value for name, value in before.items() if name != new}
    total = sum(others.values())
    if not total or share == 100:
        return {new: 100}
    left = 100 - share
    traffic = {name: left * value // total for name, value in others.items()}
    traffic[new] = 100 - sum(traffic.values())
    return traffic
