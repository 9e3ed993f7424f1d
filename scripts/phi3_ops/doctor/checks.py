"""The checks of `phi3 doctor`, and their table `CHECKS`.

A check comes after the checks that it needs. The docstring of a check function is its description in
docs/doctor.md.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .. import paths
from ..errors import OpsError
from ..installation import install_command
from .azure_checks import environments
from .packages import check_packages
from .runner import FAIL, OK, WARN, Check, Finding

if TYPE_CHECKING:
    from phi3_tools import Settings

    from ..azure import Cloud, Config

WAYS = {
    "local": "flows on this machine: pf flow test, phi3 connect",
    "serve": "a served flow: phi3 serve, pf flow serve",
    "batch": "batches and comparisons: phi3 run, phi3 compare",
    "train": "fine-tuning on this machine: phi3 data, phi3 finetune --local",
    "docs": "training data from documents: phi3 data --from-docs",
    "endpoint": "a model served on this machine: phi3 endpoint",
    "azure": "fine-tuning and deployment on Azure",
    "foundry": "flows in Azure AI Foundry",
}
FLOWS = ("local", "serve", "batch")
CLOUD = ("azure", "foundry")
OLDEST_PYTHON = (3, 10)  # the limit of this package
NEWEST_PYTHON = (3, 14)  # the newest version for which all requirements can be installed
# Limits of the checks, in seconds.
ANSWER_S = 30.0
SIGN_IN_S = 20.0
AZURE_S = 30.0


@dataclass
class CheckContext:
    """What the checks read; each part is read at its first use.

    Attributes:
        connection: name of the connection in Prompt flow's store.
        config_file: path of phi3.yaml; None means the default path.
        flows: folder of the flows and their lock; None means `paths.flows_folder()`.
        secrets: values that must not appear in the output.
    """

    connection: str = "phi3"
    config_file: Path | None = None
    flows: Path | None = None
    secrets: set[str] = field(default_factory=set)

    @cached_property
    def settings(self) -> Settings:
        """The settings of the connection.

        Raises:
            OpsError: the connection does not exist.
            ConfigError: a field is wrong.
        """
        from phi3_tools import KeyAuth
        from phi3_tools.client import connection_fields, read_settings

        from ..pf import NO_KEY, find_connection

        connection = find_connection(self.connection)
        if connection is None:
            here, elsewhere = "phi3 quickstart, phi3 endpoint", "phi3 connect --endpoint URL"
            fix = f"{here}, PHI3_KEY=… {elsewhere}, or phi3 connect --azure"
            raise OpsError(f"the connection {self.connection!r} does not exist", fix)
        # `key` is a secret even if it is not marked as one, which Foundry allows.
        secrets = {*dict(connection.secrets or {}).values()}
        secrets.add(connection_fields(connection).get("key", ""))
        self.secrets |= {str(value) for value in secrets if value != NO_KEY}
        settings = read_settings(connection)
        self.secrets.add(urlsplit(settings.endpoint).query)
        if isinstance(settings.auth, KeyAuth):
            # The key itself, if the connection refers to an environment variable.
            self.secrets.add(settings.auth.header().removeprefix("Bearer "))
        return settings

    @cached_property
    def config(self) -> Config:
        """The configuration.

        Raises:
            OpsError: a field is missing or wrong.
        """
        from ..azure import load_config

        return load_config(self.config_file)

    @cached_property
    def cloud(self) -> Cloud:
        """The clients for Azure."""
        from ..azure import Cloud

        return Cloud(self.config)


# -- on this machine -------------------------------------------------------------------------------


def python(context: CheckContext) -> Finding:
    """The version of Python."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding(FAIL, f"{version} is too old")
    if sys.version_info[:2] > NEWEST_PYTHON:
        return Finding(WARN, f"{version} is untested")
    return Finding(OK, version)


def packages(context: CheckContext, *, extra: str, only: tuple[str, ...] = ()) -> Finding:
    """The required packages, the packages that these require, and their versions."""
    return check_packages(extra, only)


def promptflow(context: CheckContext) -> Finding:
    """The versions of Prompt flow's packages, if it is installed."""
    try:
        metadata.version("promptflow-core")
    except metadata.PackageNotFoundError:
        return Finding(OK, "not installed; flows run with phi3's own engine")
    return check_packages("promptflow")


def keyring(context: CheckContext) -> Finding:
    """The keyring that stores the key with which Prompt flow encrypts its connections."""
    from keyring import get_keyring

    from ..pf import KEYRING_VARIABLE, OwnerOnlyFileKeyring

    ring = get_keyring()
    name = f"{type(ring).__module__}.{type(ring).__qualname__}"
    if name.startswith(("keyring.backends.fail.", "keyring.backends.null.")):
        return Finding(FAIL, f"{name} does not store anything")
    if isinstance(ring, OwnerOnlyFileKeyring):
        # The values are secrets: they must not appear in the output, even if the JSON is wrong.
        if os.environ.get(KEYRING_VARIABLE):
            try:
                context.secrets |= set(map(str, json.loads(os.environ[KEYRING_VARIABLE]).values()))
            except (ValueError, AttributeError):
                fix = f'{KEYRING_VARIABLE}=\'{{"service/user": "secret"}}\''
                return Finding(FAIL, f"{KEYRING_VARIABLE} is not a JSON object", fix)
        elif ring.path.exists() and os.name == "posix":
            mode = stat.S_IMODE(ring.path.stat().st_mode)
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                what = f"other users can read {ring.path}"
                return Finding(FAIL, what, f"chmod 600 {ring.path}")
    elif "keyrings.alt" in name and "Plaintext" in name:
        what = f"{name} stores secrets as plain text"
        return Finding(WARN, what, "pip uninstall keyrings.alt")
    ring.get_password("promptflow", "phi3 doctor")  # does not exist, but reading must not fail
    return Finding(OK, name)


def connection(context: CheckContext) -> Finding:
    """The connection in Prompt flow's store, and its fields."""
    from ..runs import url_without_secrets

    settings = context.settings
    fields = {"deployment": settings.deployment, "model": settings.model}
    details = "".join(f", {name} {value}" for name, value in fields.items() if value)
    target = f"{context.connection} -> {url_without_secrets(settings.endpoint)}"
    return Finding(OK, f"{target} ({settings.contract} contract{details})")


def endpoint(context: CheckContext) -> Finding:
    """The answer of the endpoint to one short question, its contract, and its latency."""
    from phi3_tools import Limits, Params, Phi3Client

    from ..pf import PROBE_QUESTION

    limits = Limits(
        connect_timeout_s=5, read_timeout_s=ANSWER_S, deadline_s=ANSWER_S, max_attempts=1
    )
    with Phi3Client(replace(context.settings, limits=limits)) as client:
        reply = client.chat(PROBE_QUESTION, Params(max_new_tokens=4, temperature=0))
    return Finding(OK, f"answers in {reply.latency_s:.2f} s, {reply.contract} contract")


def flow_lock(context: CheckContext) -> Finding:
    """Whether the content of each flow is the locked content of its version."""
    from ..flows import LOCK_CHANGED, NOT_LOCKED, flow_states

    states = flow_states(context.flows or paths.flows_folder())
    if changed := [f"{s.name} {s.version}" for s in states if s.status == LOCK_CHANGED]:
        fix = "Raise `tags.version` in its flow.dag.yaml, then phi3 flow lock."
        return Finding(FAIL, f"locked with other content: {', '.join(changed)}", fix)
    if new := [f"{s.name} {s.version}" for s in states if s.status == NOT_LOCKED]:
        return Finding(FAIL, f"not locked: {', '.join(new)}", "phi3 flow lock")
    return Finding(OK, ", ".join(f"{s.name} {s.version}" for s in states))


# -- on Azure --------------------------------------------------------------------------------------


def configuration(context: CheckContext) -> Finding:
    """`phi3.yaml` and the environment."""
    azure = context.config.azure
    return Finding(OK, f"{azure.workspace} in {azure.resource_group}, {azure.location}")


def sizes(context: CheckContext) -> Finding:
    """Whether the configured machine sizes are retired, or unavailable to new subscriptions."""
    from ..azure import A100, cluster_need, endpoint_need, quota_notes, refuse_retired

    needs = [cluster_need(context.config), endpoint_need(context.config)]
    refuse_retired(needs)
    if notes := quota_notes(needs):
        return Finding(WARN, "; ".join(notes), f"Use {A100}, or try the configured size.")
    return Finding(OK, ", ".join(f"{need.purpose}: {need.size}" for need in needs))


def model(context: CheckContext) -> Finding:
    """Whether the configured base model is retired from the catalog."""
    from ..training import RETIRED_MODELS, RETIRED_ON

    name = context.config.finetune.model
    if name is None:
        return Finding(OK, f"the model of the recipe {context.config.finetune.recipe}")
    if not RETIRED_MODELS.search(name):
        return Finding(OK, name)
    if name.startswith("azureml:"):
        return Finding(FAIL, f"{name} was retired from the catalog on {RETIRED_ON}")
    note = f"retired from the catalog on {RETIRED_ON}: not with --catalog"
    return Finding(OK, f"{name}, with its weights from the hub ({note})")


def sign_in(context: CheckContext) -> Finding:
    """Whether this machine can get a token for Azure."""
    import logging

    from azure.identity import DefaultAzureCredential

    from ..azure import ARM, named_errors

    # azure.identity logs every way to sign in that does not work here.
    logging.getLogger("azure").setLevel(logging.CRITICAL)
    with named_errors("az login"), DefaultAzureCredential() as credential:
        credential.get_token(f"{ARM}/.default")
    return Finding(OK, "signed in")


def workspace(context: CheckContext) -> Finding:
    """Whether the configured workspace exists, and its region."""
    from ..azure import find_resource, named_errors

    azure = context.config.azure
    with named_errors("reading the workspace"):
        resource = find_resource(lambda: context.cloud.ml.workspaces.get(azure.workspace))
    if resource is None:
        what = f"the workspace {azure.workspace} does not exist in {azure.resource_group}"
        return Finding(FAIL, what)
    if str(resource.location).lower() != azure.location.lower():
        fix = f"azure: {{location: {resource.location}}} in phi3.yaml"
        what = f"the workspace is in {resource.location}, not in {azure.location}"
        return Finding(WARN, what, fix)
    return Finding(OK, f"{azure.workspace}, {resource.location}")


def enough_quota(context: CheckContext) -> Finding:
    """Whether the quota of the region is enough for the cores of the cluster and the endpoint."""
    from ..azure import ASK_FOR_QUOTA, cluster_need, endpoint_need, quota_lines, quota_shortage

    needs = [cluster_need(context.config), endpoint_need(context.config)]
    lines = quota_lines(context.cloud, needs)
    if shortage := quota_shortage(lines, context.config.azure.location):
        return Finding(FAIL, shortage, ASK_FOR_QUOTA)
    cores = ", ".join(f"{line.purpose}: {line.needed} cores of {line.quota}" for line in lines)
    return Finding(OK, cores)


def shared_connection(context: CheckContext) -> Finding:
    """Whether the connection of the workspace exists in the form that flows can read."""
    from ..azure import CONNECTIONS_API_VERSION, find_resource, named_errors

    name = context.config.connection
    path = f"{context.cloud.workspace_path}/connections/{name}"
    with named_errors("reading the workspace's connection"):
        resource = find_resource(
            lambda: context.cloud.rest("GET", path, api=CONNECTIONS_API_VERSION)
        )
    if resource is None:
        return Finding(FAIL, f"the workspace has no connection {name!r}")
    properties = resource.get("properties") or {}
    kind = (properties.get("category"), properties.get("authType"))
    if kind != ("CustomKeys", "CustomKeys"):
        return Finding(FAIL, f"{name!r} is {' with '.join(map(str, kind))}: flows cannot read it")
    return Finding(OK, name)


# -- the table -------------------------------------------------------------------------------------

LOCAL_PACKAGES, AZURE_PACKAGES = "packages: local", "packages: azure"
INSTALL = install_command("local")
COPY_EXAMPLE = "Copy scripts/phi3.example.yaml to phi3.yaml and fill it in."
ALL_WAYS = tuple(WAYS)

CHECKS = (
    Check("python", ALL_WAYS, python, "Install Python 3.10 to 3.14."),
    Check(LOCAL_PACKAGES, ALL_WAYS, partial(packages, extra="local"), INSTALL),
    Check(
        "packages: web server",
        ("serve",),
        partial(packages, extra="serve", only=("fastapi", "uvicorn")),
        "pip install fastapi uvicorn",
    ),
    Check("packages: promptflow", FLOWS, promptflow, install_command("promptflow")),
    Check("packages: eval", ("batch",), partial(packages, extra="eval"), INSTALL),
    Check("packages: train", ("train",), partial(packages, extra="train"), INSTALL),
    Check("packages: documents", ("docs",), partial(packages, extra="documents"), INSTALL),
    Check("packages: serve", ("endpoint",), partial(packages, extra="serve"), INSTALL),
    Check(AZURE_PACKAGES, CLOUD, partial(packages, extra="azure"), INSTALL),
    Check(
        "keyring",
        FLOWS,
        keyring,
        "Unset PYTHON_KEYRING_BACKEND, and read the output of `keyring diagnose`.",
        (LOCAL_PACKAGES,),
    ),
    Check("connection", FLOWS, connection, "phi3 connect", (LOCAL_PACKAGES, "keyring"), 30),
    Check("endpoint", FLOWS, endpoint, "phi3 connect", ("connection",), ANSWER_S + 5),
    Check("flow lock", ("batch", "foundry"), flow_lock, "phi3 flow lock", (LOCAL_PACKAGES,)),
    Check("configuration", CLOUD, configuration, COPY_EXAMPLE, (LOCAL_PACKAGES,)),
    Check("machine sizes", ("azure",), sizes, "Set another size in phi3.yaml.", ("configuration",)),
    Check(
        "environments on Azure",
        ("azure",),
        environments,
        "Pin another torch in conda.yaml, or name another image.",
        (LOCAL_PACKAGES,),
    ),
    Check("model", ("azure",), model, "Use Phi-4-mini-instruct.", ("configuration",)),
    Check("az login", CLOUD, sign_in, "az login", (AZURE_PACKAGES,), SIGN_IN_S),
    Check("workspace", CLOUD, workspace, "phi3 provision", ("configuration", "az login"), AZURE_S),
    Check(
        "quota",
        ("azure",),
        enough_quota,
        "phi3 quota",
        ("machine sizes", "workspace"),
        AZURE_S,
    ),
    Check(
        "workspace's connection",
        ("foundry",),
        shared_connection,
        "phi3 connect --azure",
        ("workspace",),
        AZURE_S,
    ),
)
