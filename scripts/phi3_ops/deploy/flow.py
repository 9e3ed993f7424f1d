"""A flow as a deployment behind an endpoint of its own, rolled out like a model: see `rollout`.

Azure ML builds the image from scripts/azure/flow. The flow is a registered model that is mounted in the
container. The endpoint's identity reads the connections and their keys in the workspace: no uploaded
file contains a key.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from phi3_tools import EntraAuth, KeyAuth

from .. import paths
from ..azure import (
    CONNECTIONS_API_VERSION,
    Cloud,
    EndpointConfig,
    Step,
    configured_identity,
    connection_reader_step,
    find_resource,
    flow_need,
    require_quota,
)
from ..errors import OpsError
from ..flows import (
    IMAGE_FOLDER,
    FlowDefinition,
    add_image_files,
    build_tool_wheel,
    copy_resolved_flow,
    flow_files,
    refuse_secrets,
)
from ..hashing import sha256_hex
from ..yaml_files import load_yaml
from .model import SMOKE_LIMITS, SMOKE_QUESTION
from .rollout import Deployment, SmokeAnswer, content_hash, content_name

YAML_FILE = "flow-deployment.yml"
CONTENT_TAG = "content"  # tag of the registered model: the hash of the flow's files
# Statuses of a front end that does not know a new deployment yet. 424 is not among them: it is an error
# of the flow itself.
TRANSIENT_STATUSES = (404, 429, 502, 503, 504)
REASON_CHARS = 200  # characters of an error answer that are shown


class FlowDeployment(Deployment):
    """One flow behind an endpoint of its own.

    Args:
        cloud: clients and configuration.
        flow: flow whose inputs each have a default, or are the question.
        endpoint_name: name of the endpoint; None joins the model's endpoint's name and the flow's name.

    Raises:
        OpsError: the smoke test cannot ask the flow, the endpoint's name is not valid, the workspace does
            not have a connection that the flow needs, or the quota is not enough.
    """

    def __init__(
        self, cloud: Cloud, flow: FlowDefinition, endpoint_name: str | None = None
    ) -> None:
        self.cloud = cloud
        self.flow = flow
        self.flow_name = flow.folder.resolve().name
        self.smoke_request = smoke_request(flow)
        self.endpoint = endpoint_config(cloud.config.endpoint, self.flow_name, endpoint_name)
        self._require_connections()
        self._require_quota()

    def _require_connections(self) -> None:
        for name in sorted(set(self.flow.connection_names({}).values())):
            path = f"{self.cloud.workspace_path}/connections/{name}"
            get = functools.partial(self.cloud.rest, "GET", path, api=CONNECTIONS_API_VERSION)
            if find_resource(get) is None:
                what = f"the workspace has no connection {name!r}, which {self.flow_name} uses"
                raise OpsError(what, "Write it with `phi3 connect --azure`.")

    def _require_quota(self) -> None:
        """Raise OpsError if the machines of a new endpoint would exceed the quota."""
        endpoint, get = self.endpoint, self.cloud.ml.online_endpoints.get
        if find_resource(lambda: get(endpoint.name)) is None:
            require_quota(self.cloud, [flow_need()])

    def steps(self) -> list[Step]:
        """Return the steps for the identity's role and the registered model."""
        return [
            connection_reader_step(self.cloud),
            Step(
                f"model {self.endpoint.model} from {self.flow.folder}",
                lambda: bool(self._model_versions()),
                self._register,
            ),
        ]

    # -- model ---------------------------------------------------------------------------------------

    @property
    def _content(self) -> str:
        return content_hash(_file_texts(self.flow.folder))

    def _model_versions(self) -> list[Any]:
        """Return the registered versions of the model that have the flow's content."""
        list_all = self.cloud.ml.models.list
        versions = find_resource(lambda: list(list_all(name=self.endpoint.model))) or []
        content = self._content
        return [model for model in versions if (model.tags or {}).get(CONTENT_TAG) == content]

    def _register(self) -> None:
        from azure.ai.ml.constants import AssetTypes
        from azure.ai.ml.entities import Model

        with tempfile.TemporaryDirectory(prefix="phi3-flow-") as folder:
            copy = Path(folder) / self.flow_name
            copy_resolved_flow(self.flow, copy)
            refuse_secrets(copy)
            model = Model(
                name=self.endpoint.model,
                path=copy,
                type=AssetTypes.CUSTOM_MODEL,
                tags={**self._tags(), CONTENT_TAG: self._content},
            )
            self.cloud.ml.models.create_or_update(model)

    def _tags(self) -> dict[str, str]:
        version = {"version": str(self.flow.version)} if self.flow.version else {}
        return {**self.cloud.tags(), "flow": self.flow_name, **version}

    # -- deployment ----------------------------------------------------------------------------------

    @functools.cached_property
    def name(self) -> str:
        """The deployment's name, from the flow, the image and the tool package that it installs."""
        image = [paths.AZURE / YAML_FILE, *sorted(IMAGE_FOLDER.glob("*"))]
        texts = [path.read_text(encoding="utf-8") for path in image if path.is_file()]
        wheel = sha256_hex(build_tool_wheel().content)
        return content_name([self.flow_name, self._content, *texts, wheel])

    @contextlib.contextmanager
    def definition(self) -> Iterator[Any]:
        """Give the deployment, beside a temporary folder from which its image is built."""
        from azure.ai.ml import load_online_deployment

        with tempfile.TemporaryDirectory(prefix="phi3-flow-") as name:
            folder = Path(name)
            shutil.copy(paths.AZURE / YAML_FILE, folder)
            add_image_files(folder / "flow", self.flow)
            refuse_secrets(folder)
            newest = max(self._model_versions(), key=lambda model: int(model.version))
            deployment = load_online_deployment(folder / YAML_FILE)
            deployment.name = self.name
            deployment.endpoint_name = self.endpoint.name
            deployment.model = f"azureml:{newest.name}:{newest.version}"
            deployment.tags = self._tags()
            deployment.environment_variables |= {
                "PRT_CONFIG_OVERRIDE": self._runtime_config(),
                "AZURE_CLIENT_ID": configured_identity(self.cloud).client_id,
            }
            yield deployment

    def _runtime_config(self) -> str:
        """Return the workspace's and the deployment's names for promptflow's serving app.

        Contract: promptflow's `AzureMLExtension`, and "Deploy a flow to a managed online endpoint".
        """
        azure = self.cloud.config.azure
        parts = {
            "subscription_id": azure.subscription_id,
            "resource_group": azure.resource_group,
            "workspace_name": azure.workspace,
            "endpoint_name": self.endpoint.name,
            "deployment_name": self.name,
        }
        return ",".join(f"deployment.{name}={value}" for name, value in parts.items())

    # -- smoke test ----------------------------------------------------------------------------------

    def ask(
        self, scoring_uri: str, auth: KeyAuth | EntraAuth, deployment: str | None
    ) -> SmokeAnswer:
        """Send the smoke request, and return the flow's first output that is not empty."""
        failure = f"the smoke test of {deployment or 'the endpoint'} failed"
        headers = {"authorization": auth.header()}
        if deployment:
            headers["azureml-model-deployment"] = deployment
        begin = time.monotonic()
        response = _post(scoring_uri, self.smoke_request, headers, failure)
        seconds = time.monotonic() - begin
        try:
            outputs = response.json() if response.ok else None
        except ValueError:
            outputs = None
        if not isinstance(outputs, dict):
            reason = " ".join(response.text.split())[:REASON_CHARS]
            what = f"{failure}: {response.status_code} {reason}"
            raise OpsError(what, "The log is printed above.")
        answers = [value for value in outputs.values() if value not in (None, "", {}, [])]
        return SmokeAnswer(_as_text(answers[0]) if answers else "", seconds)


def endpoint_config(model: EndpointConfig, flow_name: str, name: str | None) -> EndpointConfig:
    """Return the configuration of a flow's endpoint, with the machines of the YAML file.

    Args:
        model: configuration of the model's endpoint.
        flow_name: name of the flow.
        name: name of the endpoint; None joins the model's endpoint's name and the flow's name.

    Raises:
        OpsError: the name is not valid, or is that of the model's endpoint.
    """
    chosen = name or f"{model.name}-{flow_name.replace('_', '-')}"
    if chosen == model.name:
        raise OpsError(f"{chosen} is the model's endpoint", "Give another --endpoint.")
    definition = load_yaml(paths.AZURE / YAML_FILE)
    values = {
        "name": chosen,
        "model": f"flow-{flow_name}",
        "auth": model.auth,
        "size": definition["instance_type"],
        "instances": definition["instance_count"],
    }
    try:
        return EndpointConfig.model_validate(values)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise OpsError(reason, "Give --endpoint, or rename the flow's folder.") from error


def smoke_request(flow: FlowDefinition) -> dict[str, Any]:
    """Return the body of the smoke test: the defaults of the inputs, and a question for the chat input.

    Raises:
        OpsError: an input has no default and is not the chat input.
    """
    body = {}
    for name, definition in flow.inputs.items():
        if definition.get("is_chat_input"):
            body[name] = SMOKE_QUESTION
        elif "default" in definition:
            body[name] = definition["default"]
        else:
            what = f"the input {name!r} of {flow.folder} has no default for the smoke test"
            fix = "Deploy a flow that answers questions, such as chat or qa; run others in batches."
            raise OpsError(what, fix)
    return body


def _post(url: str, body: dict[str, Any], headers: dict[str, str], failure: str) -> Any:
    """Post JSON, repeated while the front end does not know the deployment yet."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        3,
        status_forcelist=TRANSIENT_STATUSES,
        allowed_methods=None,
        backoff_factor=1,
        raise_on_status=False,
    )
    timeout = SMOKE_LIMITS.read_timeout_s
    with requests.Session() as session:
        session.mount("https://", HTTPAdapter(max_retries=retry))
        try:
            return session.post(url, json=body, headers=headers, timeout=timeout)
        except requests.RequestException as error:
            what = f"{failure}: {type(error).__name__}"
            raise OpsError(what, "The log is printed above.") from error


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _file_texts(folder: Path) -> list[str]:
    """Return the path and text of every file that the image contains."""
    return [
        f"{path.relative_to(folder).as_posix()}\n{path.read_bytes().decode('utf-8', 'replace')}"
        for path in flow_files(folder)
    ]
