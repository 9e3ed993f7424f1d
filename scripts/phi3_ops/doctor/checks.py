"""What `phi3 doctor` looks at, one row of `CHECKS` each, in the order in which one needs the other."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import OpsError
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
    "endpoint": "a model served on this machine: phi3 endpoint",
    "azure": "fine-tuning and deployment on Azure",
    "foundry": "flows in Azure AI Foundry",
}
FLOWS = ("local", "serve", "batch")
CLOUD = ("azure", "foundry")
OLDEST, NEWEST = (
    (3, 10),
    (3, 14),
)  # of Python: the package's own limit, and what its parts resolve on
ANSWER_S = 30.0
SIGN_IN_S = 20.0
AZURE_S = 30.0


@dataclass
class CheckContext:
    """What is looked at: each part read when it is first asked for.

    Attributes:
        connection: name of the connection in prompt flow's store.
        config_file: phi3.yaml, or None for the usual place.
        flows: folder of the flows and their lock; None for the shipped ones.
        secrets: what must not be shown.
    """

    connection: str = "phi3"
    config_file: Path | None = None
    flows: Path | None = None
    secrets: set[str] = field(default_factory=set)

    @cached_property
    def settings(self) -> Settings:
        """The connection, checked."""
        from phi3_tools import KeyAuth
        from phi3_tools.client import connection_fields, read_settings

        from ..pf import NO_KEY, load_connection

        found = load_connection(self.connection)
        if found is None:
            fix = "PHI3_KEY=… phi3 connect --endpoint URL, or phi3 connect --azure"
            raise OpsError(f"there is no connection {self.connection!r}", fix)
        # All of them, and `key` wherever it lies: in Foundry people mark either.
        secret = {*dict(found.secrets or {}).values(), connection_fields(found).get("key", "")}
        self.secrets |= {str(value) for value in secret if value != NO_KEY}
        settings = read_settings(found)
        self.secrets.add(urlsplit(settings.endpoint).query)
        if isinstance(
            settings.auth, KeyAuth
        ):  # from the environment, where the connection refers to it
            self.secrets.add(settings.auth.header().removeprefix("Bearer "))
        return settings

    @cached_property
    def config(self) -> Config:
        from ..azure import load_config

        return load_config(self.config_file)

    @cached_property
    def cloud(self) -> Cloud:
        from ..azure import Cloud

        return Cloud(self.config)


# -- on this machine -------------------------------------------------------------------------------


def python(here: CheckContext) -> Finding:
    """The version of Python."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST:
        return Finding(FAIL, f"{found} is too old")
    if sys.version_info[:2] > NEWEST:
        return Finding(WARN, f"{found} was not tried")
    return Finding(OK, found)


def packages(here: CheckContext, *, extra: str, only: tuple[str, ...] = ()) -> Finding:
    """The packages, those that they ask for in turn, and the versions of both."""
    return check_packages(extra, only)


def keyring(here: CheckContext) -> Finding:
    """What keeps the key with which prompt flow encrypts its connections."""
    from keyring import get_keyring

    from ..pf import KEYRING_VARIABLE, OwnerOnlyFileKeyring

    ring = get_keyring()
    name = f"{type(ring).__module__}.{type(ring).__qualname__}"
    if name.startswith(("keyring.backends.fail.", "keyring.backends.null.")):
        return Finding(FAIL, f"{name} keeps nothing")
    if isinstance(ring, OwnerOnlyFileKeyring):
        # Its values are secrets, too, and a mistake in it must not show them.
        if os.environ.get(KEYRING_VARIABLE):
            try:
                here.secrets |= set(map(str, json.loads(os.environ[KEYRING_VARIABLE]).values()))
            except (ValueError, AttributeError):
                fix = f'{KEYRING_VARIABLE}=\'{{"service/user": "secret"}}\''
                return Finding(FAIL, f"{KEYRING_VARIABLE} is no JSON object", fix)
        elif ring.path.exists() and os.name == "posix":
            mode = stat.S_IMODE(ring.path.stat().st_mode)
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                return Finding(FAIL, f"others can read {ring.path}", f"chmod 600 {ring.path}")
    elif "keyrings.alt" in name and "Plaintext" in name:
        return Finding(WARN, f"{name} keeps secrets as plain text", "pip uninstall keyrings.alt")
    ring.get_password("promptflow", "phi3 doctor")  # not there, but it must be possible to ask
    return Finding(OK, name)


def connection(here: CheckContext) -> Finding:
    """The connection in prompt flow's store and its fields."""
    from ..runs import url_without_secrets

    settings = here.settings
    named = {"deployment": settings.deployment, "model": settings.model}
    more = "".join(f", {name} {value}" for name, value in named.items() if value)
    where = f"{here.connection} -> {url_without_secrets(settings.endpoint)}"
    return Finding(OK, f"{where} ({settings.contract} contract{more})")


def endpoint(here: CheckContext) -> Finding:
    """One small question to it: the answer, its contract, the time."""
    from phi3_tools import Limits, Params, Phi3Client

    from ..pf import PROBE_QUESTION

    limits = Limits(
        connect_timeout_s=5, read_timeout_s=ANSWER_S, deadline_s=ANSWER_S, max_attempts=1
    )
    with Phi3Client(replace(here.settings, limits=limits)) as client:
        reply = client.chat(PROBE_QUESTION, Params(max_new_tokens=4, temperature=0))
    return Finding(OK, f"answers in {reply.latency_s:.2f} s, {reply.contract} contract")


def flow_lock(here: CheckContext) -> Finding:
    """Each flow's content beside what is locked of its version."""
    from ..flows import LOCK_CHANGED, NOT_LOCKED, flow_states

    found = flow_states(*([here.flows] if here.flows else []))
    if changed := [f"{s.name} {s.version}" for s in found if s.status == LOCK_CHANGED]:
        fix = "Raise `tags.version` in its flow.dag.yaml, then phi3 flow lock."
        return Finding(FAIL, f"locked with other content: {', '.join(changed)}", fix)
    if new := [f"{s.name} {s.version}" for s in found if s.status == NOT_LOCKED]:
        return Finding(FAIL, f"not locked: {', '.join(new)}", "phi3 flow lock")
    return Finding(OK, ", ".join(f"{s.name} {s.version}" for s in found))


# -- on Azure --------------------------------------------------------------------------------------


def configuration(here: CheckContext) -> Finding:
    """`phi3.yaml` and the environment."""
    where = here.config.azure
    return Finding(OK, f"{where.workspace} in {where.resource_group}, {where.location}")


def sizes(here: CheckContext) -> Finding:
    """The configured machines: retired, or not for everyone."""
    from ..azure import A100, cluster_need, endpoint_need, quota_notes, refuse_retired

    needs = [cluster_need(here.config), endpoint_need(here.config)]
    refuse_retired(needs)
    if noted := quota_notes(needs):
        return Finding(WARN, "; ".join(noted), f"Use {A100}, or try it.")
    return Finding(OK, ", ".join(f"{need.purpose}: {need.size}" for need in needs))


def model(here: CheckContext) -> Finding:
    """The configured base model: retired from the catalog."""
    from ..training import RETIRED_MODELS, RETIRED_ON

    name = here.config.finetune.model
    if name is None:
        return Finding(OK, f"that of the recipe {here.config.finetune.recipe}")
    if not RETIRED_MODELS.search(name):
        return Finding(OK, name)
    if name.startswith("azureml:"):
        return Finding(FAIL, f"{name} was retired from the catalog on {RETIRED_ON}")
    note = f"retired from the catalog on {RETIRED_ON}: not with --catalog"
    return Finding(OK, f"{name}, from its own weights ({note})")


def sign_in(here: CheckContext) -> Finding:
    """A token for Azure, with whatever signs in on this machine."""
    import logging

    from azure.identity import DefaultAzureCredential

    from ..azure import ARM, named_errors

    logging.getLogger("azure").setLevel(
        logging.CRITICAL
    )  # each way that is not there is told otherwise
    with named_errors("az login"), DefaultAzureCredential() as credential:
        credential.get_token(f"{ARM}/.default")
    return Finding(OK, "signed in")


def workspace(here: CheckContext) -> Finding:
    """The configured workspace, and its region."""
    from ..azure import find_resource, named_errors

    where = here.config.azure
    with named_errors("reading the workspace"):
        found = find_resource(lambda: here.cloud.ml.workspaces.get(where.workspace))
    if found is None:
        return Finding(FAIL, f"there is no workspace {where.workspace} in {where.resource_group}")
    if str(found.location).lower() != where.location.lower():
        fix = f"azure: {{location: {found.location}}} in phi3.yaml"
        return Finding(WARN, f"it lies in {found.location}, not in {where.location}", fix)
    return Finding(OK, f"{where.workspace}, {found.location}")


def enough_quota(here: CheckContext) -> Finding:
    """The cores that cluster and endpoint need, beside what the region gives."""
    from ..azure import ASK_FOR_QUOTA, cluster_need, endpoint_need, quota_lines, quota_shortage

    needs = [cluster_need(here.config), endpoint_need(here.config)]
    found = quota_lines(here.cloud, needs)
    if short := quota_shortage(found, here.config.azure.location):
        return Finding(FAIL, short, ASK_FOR_QUOTA)
    cores = ", ".join(f"{line.purpose}: {line.needed} cores of {line.quota}" for line in found)
    return Finding(OK, cores)


def shared_connection(here: CheckContext) -> Finding:
    """The connection there, in the one form that flows can read."""
    from ..azure import CONNECTIONS_API_VERSION, find_resource, named_errors

    name = here.config.connection
    path = f"{here.cloud.workspace_path}/connections/{name}"
    with named_errors("reading the workspace's connection"):
        found = find_resource(lambda: here.cloud.rest("GET", path, api=CONNECTIONS_API_VERSION))
    if found is None:
        return Finding(FAIL, f"the workspace has no connection {name!r}")
    properties = found.get("properties") or {}
    kind = (properties.get("category"), properties.get("authType"))
    if kind != ("CustomKeys", "CustomKeys"):
        return Finding(FAIL, f"{name!r} is {' with '.join(map(str, kind))}: flows cannot read it")
    return Finding(OK, name)


# -- the table -------------------------------------------------------------------------------------

LOCAL_PACKAGES, AZURE_PACKAGES = "packages: local", "packages: azure"
INSTALL = "pip install 'phi3-promptflow[local]'"
COPY = "Copy scripts/phi3.example.yaml to phi3.yaml and fill it in."
EVERY = tuple(WAYS)

CHECKS = (
    Check("python", EVERY, python, "Install Python 3.10 to 3.14."),
    Check(LOCAL_PACKAGES, EVERY, partial(packages, extra="local"), INSTALL),
    Check(
        "packages: web server",
        ("serve",),
        partial(packages, extra="serve", only=("fastapi", "uvicorn")),
        "pip install fastapi uvicorn",
    ),
    Check("packages: eval", ("batch",), partial(packages, extra="eval"), INSTALL),
    Check("packages: train", ("train",), partial(packages, extra="train"), INSTALL),
    Check("packages: serve", ("endpoint",), partial(packages, extra="serve"), INSTALL),
    Check(AZURE_PACKAGES, CLOUD, partial(packages, extra="azure"), INSTALL),
    Check(
        "keyring",
        FLOWS,
        keyring,
        "unset PYTHON_KEYRING_BACKEND, and look at `keyring diagnose`",
        (LOCAL_PACKAGES,),
    ),
    Check("connection", FLOWS, connection, "phi3 connect", (LOCAL_PACKAGES, "keyring"), 30),
    Check("endpoint", FLOWS, endpoint, "phi3 connect", ("connection",), ANSWER_S + 5),
    Check("flow lock", ("batch", "foundry"), flow_lock, "phi3 flow lock", (LOCAL_PACKAGES,)),
    Check("configuration", CLOUD, configuration, COPY, (LOCAL_PACKAGES,)),
    Check("machine sizes", ("azure",), sizes, "phi3.yaml names them", ("configuration",)),
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
