"""Reading and checking of a connection: a CustomConnection, a mapping, or the environment.

A CustomConnection has `configs` and `secrets`. The two fields of the AI Foundry tutorial, `endpoint` and
`key`, work unchanged. Each may be in `configs` or in `secrets`, because Foundry lets people mark either
as secret. All other fields are optional.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from .auth import Auth, EntraAuth, KeyAuth, scoring_url, token_scope
from .contracts import AUTO, candidates
from .redaction import MARK, MIN_PART
from .retry import Limits

# Environment variables for the fields, for use without a connection.
SETTINGS_VARIABLES = {
    "endpoint": "PHI3_ENDPOINT",
    "key": "PHI3_KEY",
    "contract": "PHI3_CONTRACT",
    "deployment": "PHI3_DEPLOYMENT",
    "auth": "PHI3_AUTH",
    "model": "PHI3_MODEL",
    "template": "PHI3_TEMPLATE",
}
# A value that a person should have replaced, or that prompt flow displays instead of a secret.
_PLACEHOLDER = re.compile(r"<[^<>]*>|\*{3,}")
_HEADER_VALUE = re.compile(r"[!-~]+")
_REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class Settings:
    """A checked connection.

    Attributes:
        endpoint: the scoring URL, in its normal form (`scoring_url`).
        auth: source of the `Authorization` header.
        contract: `auto`, or the name of a contract.
        deployment: name of a deployment to call directly, without the traffic rules; or None.
        model: name of the model, if the endpoint serves several; or None.
        tokenizer: path of a `tokenizer.json` for exact token counts; or None.
        limits: timeouts and attempts.
        template: where an `mlflow` request is put into the chat template: `client` or `server`.

    Raises:
        ConfigError: the URL is not valid or not safe, the contract or template is unknown, or the
            deployment's name is not valid.
    """

    endpoint: str
    auth: Auth
    contract: str = AUTO
    deployment: str | None = None
    model: str | None = None
    tokenizer: str | None = None
    limits: Limits = field(default_factory=Limits)
    template: str = "client"

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoint", scoring_url(self.endpoint))
        candidates(self.contract, self.endpoint, self.template)
        if self.deployment and not _HEADER_VALUE.fullmatch(self.deployment):
            raise ConfigError(
                f"the connection's `deployment` is not a valid name: {self.deployment!r}"
            )


def read_settings(connection: Any = None) -> Settings:
    """Return the settings of a connection.

    Args:
        connection: an object with `configs` and `secrets`, a mapping of fields, or None for the
            environment (`PHI3_ENDPOINT`, `PHI3_KEY`, …).

    Raises:
        ConfigError: a field is missing or wrong; the message names it and the fix.
    """
    values = {name: _resolve(name, value) for name, value in connection_fields(connection).items()}
    try:
        return _settings(values, connection)
    except ConfigError as error:
        # A key that was pasted into another field as well would be in the message about that field.
        key = values.get("key", "")
        if len(key) < MIN_PART or key not in error.message:
            raise
        raise ConfigError(error.message.replace(key, MARK), hint=error.hint) from None


def _settings(values: Mapping[str, str], connection: Any) -> Settings:
    endpoint = values.get("endpoint", "")
    if not endpoint:
        raise ConfigError(_missing("endpoint", connection), hint=_fix("endpoint", connection))
    scoring_url(endpoint)  # before the key, so that errors come in the order of the fields
    return Settings(
        endpoint=endpoint,
        auth=_auth(values, connection),
        contract=values.get("contract") or AUTO,
        deployment=values.get("deployment") or None,
        model=values.get("model") or None,
        tokenizer=values.get("tokenizer") or None,
        limits=Limits.of(values),
        template=values.get("template") or "client",
    )


def connection_fields(connection: Any) -> dict[str, str]:
    """Return a connection's fields as one dict, without blanks around the values.

    If a field is in both `configs` and `secrets`, the secret is used.

    Raises:
        ConfigError: the object is not a connection.
    """
    if connection is None:
        fields = {field: os.environ.get(name) for field, name in SETTINGS_VARIABLES.items()}
    elif isinstance(connection, Mapping):
        fields = dict(connection)
    elif isinstance(connection, str):
        raise ConfigError(
            f"the tool got the connection's name ({connection!r}) instead of the connection",
            hint="Give the input the type CustomConnection in the flow.",
        )
    else:
        # Fields are not read as attributes, because prompt flow logs a warning for each.
        configs = getattr(connection, "configs", None)
        secrets = getattr(connection, "secrets", None)
        if configs is None and secrets is None:
            kind = type(connection).__name__
            raise ConfigError(
                f"{kind} is not a CustomConnection", hint="Choose a CustomConnection."
            )
        fields = {**(configs or {}), **(secrets or {})}
    return {name: str(value).strip() for name, value in fields.items() if value not in (None, "")}


def _resolve(name: str, value: str) -> str:
    """Replace `${env:NAME}` by the variable's value; prompt flow does this under `pf flow serve` only."""

    def lookup(match: re.Match[str]) -> str:
        variable = match.group(1)
        if variable not in os.environ:
            raise ConfigError(
                f"the connection's `{name}` refers to the environment variable {variable}, "
                "which is not set",
                hint=f"Set {variable}.",
            )
        return os.environ[variable]

    resolved = _REFERENCE.sub(lookup, value)
    if _PLACEHOLDER.fullmatch(resolved):
        raise ConfigError(
            f"the connection's `{name}` is still the placeholder"
            + ("" if name == "key" else f" {resolved}"),  # it may be a key in angle brackets
            hint=f"Replace it with the real {name}.",
        )
    return resolved


def _auth(values: Mapping[str, str], connection: Any) -> Auth:
    kind = values.get("auth") or "key"
    if kind == "entra":
        return EntraAuth(token_scope(values["endpoint"]))
    if kind != "key":
        raise ConfigError(f"the connection's `auth` is {kind!r}, but must be `key` or `entra`")
    if not values.get("key"):
        raise ConfigError(_missing("key", connection), hint=_fix("key", connection))
    return KeyAuth(values["key"])


def _missing(name: str, connection: Any) -> str:
    if connection is None:
        return f"no connection was given, and {SETTINGS_VARIABLES[name]} is not set"
    label = getattr(connection, "name", None)
    existing = ", ".join(f"`{field}`" for field in sorted(connection_fields(connection)))
    return f"the connection{f' {label!r}' if label else ''} has no `{name}`" + (
        f" (it has {existing})" if existing else ""
    )


def _fix(name: str, connection: Any) -> str:
    if connection is None:
        return f"Choose a connection, or set {SETTINGS_VARIABLES[name]}."
    entra = ", or set `auth: entra`" if name == "key" else ""
    where = "secrets" if name == "key" else "configs"
    return f"Add `{name}` to its {where}{entra}."
