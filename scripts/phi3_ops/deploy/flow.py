"""A flow as a managed online endpoint of its own, as safely as a model: see `rollout`.

Its image is built by Azure ML from scripts/azure/flow; the flow itself is a registered model, which is
mounted. Its connections, and their keys, are read in the workspace by the endpoint's identity: nothing
that is uploaded holds a key.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from .. import paths
from ..azure import (
    CONNECTION_SECRETS,
    CONNECTIONS_API_VERSION,
    Cloud,
    EndpointConfig,
    Step,
    find_resource,
    grant_role,
    has_role,
)
from ..errors import OpsError
from ..flows import (
    IMAGE_FOLDER,
    FlowDefinition,
    add_image_files,
    build_tool_wheel,
    copy_resolved_flow,
    is_never_uploaded,
    refuse_secrets,
)
from ..hashing import sha256_hex
from .model import SMOKE_LIMITS, SMOKE_QUESTION
from .rollout import Rollout, RolloutOptions, content_name

YAML_FILE = "flow-deployment.yml"
CONTENT = "content"  # the model's tag: the hash of the flow's files
# What a front end answers while it learns of a deployment. Not 424: that is the flow's own refusal.
PASSING = (404, 429, 502, 503, 504)


class FlowDeployer(Rollout):
    """Brings one flow behind an endpoint.

    Args:
        cloud: where to.
        options: how; `job` is not looked at.
        say: shows one line of progress.
        flow: the flow; each of its inputs has a default, or is the question.
        name: the endpoint's; the model's endpoint's and the flow's, when left out.

    Raises:
        OpsError: the flow cannot be asked, the name is none, or a connection is not in the workspace.
    """

    def __init__(
        self,
        cloud: Cloud,
        options: RolloutOptions,
        say: Callable[[str], None],
        flow: FlowDefinition,
        name: str | None = None,
    ) -> None:
        self.flow, self.flow_name = flow, flow.folder.resolve().name
        self.body = smoke_question(flow)
        super().__init__(cloud, options, say, self._endpoint(cloud.config.endpoint, name))
        self._require_connections()

    def _endpoint(self, model: EndpointConfig, name: str | None) -> EndpointConfig:
        chosen = name or f"{model.name}-{self.flow_name.replace('_', '-')}"
        if chosen == model.name:
            raise OpsError(f"{chosen} is the model's endpoint", "Give another --endpoint.")
        text = (paths.AZURE / YAML_FILE).read_text(encoding="utf-8")
        written = yaml.safe_load(text)
        given = {"size": written["instance_type"], "instances": written["instance_count"]}
        given |= {"name": chosen, "model": f"flow-{self.flow_name}", "auth": model.auth}
        try:
            return EndpointConfig.model_validate(given)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise OpsError(reason, "Give --endpoint, or the flow's folder another name.") from error

    def _require_connections(self) -> None:
        for name in sorted(set(self.flow.connection_names({}).values())):
            path = f"{self.cloud.workspace_path}/connections/{name}"
            get = functools.partial(self.cloud.rest, "GET", path, api=CONNECTIONS_API_VERSION)
            if find_resource(get) is None:
                what = f"the workspace has no connection {name!r}, which {self.flow_name} asks"
                raise OpsError(what, "Write it with `phi3 connect --azure`.")

    def _made_of(self) -> list[Step]:
        role = CONNECTION_SECRETS
        what = f"role {role.name} of {self.cloud.config.identity.name} on the {role.on}"
        model = f"model {self.config.model} from {self.flow.folder}"
        return [
            Step(what, self._has_role, self._grant, verb="assign"),
            Step(model, lambda: bool(self._models()), self._register),
        ]

    # -- role ----------------------------------------------------------------------------------------

    def _identity(self) -> Any:
        where, name = self.cloud.config.azure, self.cloud.config.identity.name
        found = find_resource(lambda: self.cloud.identities.get(where.resource_group, name))
        if found is None:
            raise OpsError(f"there is no identity {name}", "Make it with `phi3 provision`.")
        return found

    def _has_role(self) -> bool:
        scope, principal = self.cloud.workspace_path, self._identity().principal_id
        return has_role(self.cloud, CONNECTION_SECRETS, scope, principal)

    def _grant(self) -> None:
        scope, principal = self.cloud.workspace_path, self._identity().principal_id
        grant_role(self.cloud, CONNECTION_SECRETS, scope, principal)

    # -- model ---------------------------------------------------------------------------------------

    @property
    def _content(self) -> str:
        return content_name(_texts(self.flow.folder)).removeprefix("d-")

    def _models(self) -> list[Any]:
        found = find_resource(lambda: list(self.cloud.ml.models.list(name=self.config.model))) or []
        return [model for model in found if (model.tags or {}).get(CONTENT) == self._content]

    def _register(self) -> None:
        from azure.ai.ml.constants import AssetTypes
        from azure.ai.ml.entities import Model

        with tempfile.TemporaryDirectory(prefix="phi3-flow-") as folder:
            copy = Path(folder) / self.flow_name
            copy_resolved_flow(self.flow, copy)
            refuse_secrets(copy)
            model = Model(
                name=self.config.model,
                path=copy,
                type=AssetTypes.CUSTOM_MODEL,
                tags={**self._tags(), CONTENT: self._content},
            )
            self.cloud.ml.models.create_or_update(model)

    def _tags(self) -> dict[str, str]:
        version = {"version": str(self.flow.version)} if self.flow.version else {}
        return {**self.cloud.tags(), "flow": self.flow_name, **version}

    # -- deployment ----------------------------------------------------------------------------------

    @functools.cached_property
    def name(self) -> str:
        """The deployment's name, from the flow, the image and the package that is installed in it."""
        image = [paths.AZURE / YAML_FILE, *sorted(IMAGE_FOLDER.glob("*"))]
        texts = [path.read_text(encoding="utf-8") for path in image if path.is_file()]
        wheel = sha256_hex(build_tool_wheel().content)
        return content_name([self.flow_name, self._content, *texts, wheel])

    def _create_deployment(self) -> None:
        with self._staged():
            super()._create_deployment()

    @contextlib.contextmanager
    def _staged(self) -> Iterator[None]:
        """The YAML file, and beside it the folder that the image is built from, with the wheel."""
        with tempfile.TemporaryDirectory(prefix="phi3-flow-") as folder:
            self._yaml = Path(folder) / YAML_FILE
            shutil.copy(paths.AZURE / YAML_FILE, self._yaml)
            add_image_files(Path(folder) / "flow", self.flow)
            refuse_secrets(Path(folder))
            yield

    def _definition(self) -> Any:
        from azure.ai.ml import load_online_deployment

        deployment = load_online_deployment(self._yaml)
        deployment.name = self.name
        deployment.endpoint_name = self.config.name
        newest = max(self._models(), key=lambda model: int(model.version))
        deployment.model = f"azureml:{newest.name}:{newest.version}"
        deployment.tags = self._tags()
        deployment.environment_variables |= {
            "PRT_CONFIG_OVERRIDE": self._where(),
            "AZURE_CLIENT_ID": self._identity().client_id,
        }
        return deployment

    def _where(self) -> str:
        """Contract: promptflow's `AzureMLExtension`, and "Deploy a flow to a managed online endpoint"."""
        where = self.cloud.config.azure
        parts = {
            "subscription_id": where.subscription_id,
            "resource_group": where.resource_group,
            "workspace_name": where.workspace,
            "endpoint_name": self.config.name,
            "deployment_name": self.name,
        }
        return ",".join(f"deployment.{name}={value}" for name, value in parts.items())

    # -- smoke test ----------------------------------------------------------------------------------

    def _ask(self, deployment: str | None) -> tuple[str, float]:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        retry = Retry(
            3,
            status_forcelist=PASSING,
            allowed_methods=None,
            backoff_factor=1,
            raise_on_status=False,
        )
        headers = {"authorization": self._auth().header()}
        if deployment:
            headers["azureml-model-deployment"] = deployment
        failed = f"the smoke test of {deployment or 'the endpoint'} failed"
        with requests.Session() as session:
            session.mount("https://", HTTPAdapter(max_retries=retry))
            begun = time.monotonic()
            try:
                answer = session.post(
                    self.endpoint().scoring_uri,
                    json=self.body,
                    headers=headers,
                    timeout=SMOKE_LIMITS.read_timeout_s,
                )
            except requests.RequestException as error:
                what = f"{failed}: {type(error).__name__}"
                raise OpsError(what, "Its log is shown above.") from error
            seconds = time.monotonic() - begun
        try:
            outputs = answer.json() if answer.ok else None
        except ValueError:
            outputs = None
        if not isinstance(outputs, dict):
            said = " ".join(answer.text.split())[:200]
            raise OpsError(f"{failed}: {answer.status_code} {said}", "Its log is shown above.")
        told = [value for value in outputs.values() if value not in (None, "", {}, [])]
        return ("" if not told else _line(told[0])), seconds


def smoke_question(flow: FlowDefinition) -> dict[str, Any]:
    """The smoke test's request: the inputs' defaults, and a question where one is asked for.

    Raises:
        OpsError: an input has neither.
    """
    body = {}
    for name, definition in flow.inputs.items():
        if definition.get("is_chat_input"):
            body[name] = SMOKE_QUESTION
        elif "default" in definition:
            body[name] = definition["default"]
        else:
            what = f"the input {name!r} of {flow.folder} has no default to test the deployment with"
            raise OpsError(
                what, "Deploy a flow that answers, as chat or qa; run others in batches."
            )
    return body


def _line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _texts(folder: Path) -> list[str]:
    """Every file's path and text, without what is left out of an image."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(map(is_never_uploaded, path.relative_to(folder).parts))
    )
    return [
        f"{path.relative_to(folder).as_posix()}\n{path.read_bytes().decode('utf-8', 'replace')}"
        for path in files
    ]
