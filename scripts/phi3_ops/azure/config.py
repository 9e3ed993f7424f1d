"""The configuration of the Azure commands: `phi3.yaml`, and environment variables that override it.

The configuration contains no secrets: azure-identity signs in.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .. import paths
from ..errors import OpsError
from ..yaml_files import load_yaml
from .sizes import has_gpu

CONFIG_FILE = Path("phi3.yaml")
CONFIG_VARIABLE = "PHI3_CONFIG"
PLACEHOLDER = "is still the placeholder"

# Environment variable -> section and field that it sets. Azure's tools use the first three names.
ENVIRONMENT = {
    "AZURE_SUBSCRIPTION_ID": ("azure", "subscription_id"),
    "AZURE_RESOURCE_GROUP": ("azure", "resource_group"),
    "AZUREML_WORKSPACE_NAME": ("azure", "workspace"),
    "AZURE_LOCATION": ("azure", "location"),
    "PHI3_ENDPOINT_NAME": ("endpoint", "name"),
    "PHI3_OWNER": ("tags", "owner"),
}


def _no_placeholder(value: str) -> str:
    if re.fullmatch(r"<.*>", value.strip()):
        raise ValueError(f"{PLACEHOLDER} {value}")
    return value


def _matches(pattern: str, rule: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{value!r} is not a valid name: use {rule}")
        return value

    return AfterValidator(check)


_FILLED = AfterValidator(_no_placeholder)
Name = Annotated[
    str, _FILLED, _matches(r"[A-Za-z][A-Za-z0-9_-]{2,32}", "3 to 33 letters, digits, - and _")
]
EndpointName = Annotated[
    str,
    _FILLED,
    _matches(
        r"[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]",
        "3 to 32 letters, digits and -, beginning with a letter and not ending with -",
    ),
]
Guid = Annotated[str, _FILLED, _matches(r"[0-9a-fA-F-]{36}", "a GUID of 36 characters")]
Text = Annotated[str, _FILLED, Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AzureConfig(_Section):
    """Subscription, resource group, workspace and region.

    With `identity`, the workspace reads its storage with identities instead of account keys, which some
    tenants forbid.
    """

    subscription_id: Guid
    resource_group: Text
    workspace: Name
    location: Text = "eastus2"
    identity: bool = False


class IdentityConfig(_Section):
    """The user-assigned identity of the endpoint."""

    name: Name = "phi3-identity"


class ComputeConfig(_Section):
    """The cluster for fine-tuning."""

    name: Name = "gpu-a100"
    size: Text = "Standard_NC24ads_A100_v4"
    max_instances: int = Field(1, ge=1)
    idle_seconds: int = Field(120, ge=60)
    low_priority: bool = False


class FineTuneConfig(_Section):
    """The fine-tuning job."""

    recipe: Text = "lora"
    model: Text | None = None
    train_file: Path = Path(".phi3/data/train.jsonl")
    eval_file: Path = Path(".phi3/data/test.jsonl")
    instances: int = Field(1, ge=1)


class AutoscaleConfig(_Section):
    """When Azure adds and removes machines of the deployment.

    Thresholds are percentages of use, milliseconds or requests per minute, depending on the metric.
    """

    min: int = Field(1, ge=1)
    max: int = Field(ge=1)
    metric: Literal["cpu", "gpu", "latency", "requests"] = "gpu"
    scale_out_above: float = Field(70, gt=0)
    scale_in_below: float = Field(30, ge=0)

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> AutoscaleConfig:
        if self.max < self.min:
            raise ValueError(f"max {self.max} is less than min {self.min}")
        if self.scale_in_below >= self.scale_out_above:
            raise ValueError(
                f"scale_in_below {self.scale_in_below:g} is not less than scale_out_above "
                f"{self.scale_out_above:g}"
            )
        return self


class EndpointConfig(_Section):
    """The endpoint, its model and its machines."""

    name: EndpointName = "phi3-endpoint"
    model: Name = "phi3-finetuned"
    auth: Literal["key", "entra"] = "key"
    size: Text = "Standard_NC24ads_A100_v4"
    instances: int = Field(1, ge=1)
    variant: Literal["auto", "score", "mlflow", "vllm"] = "auto"
    max_model_len: int = Field(4096, ge=512)
    autoscale: AutoscaleConfig | None = None

    @property
    def served_variant(self) -> str:
        """The variant to deploy: with `auto`, vLLM on a GPU and the scoring script on a CPU."""
        if self.variant != "auto":
            return self.variant
        return "vllm" if has_gpu(self.size) else "score"

    @property
    def first_instances(self) -> int:
        """The number of machines of a new deployment, within the limits of `autoscale`."""
        if self.autoscale is None:
            return self.instances
        return min(max(self.instances, self.autoscale.min), self.autoscale.max)


class TagsConfig(_Section):
    """The tags of every resource that this product creates."""

    owner: Text = Field(default_factory=lambda: os.environ.get("USER") or "unknown")
    expires_days: int = Field(7, ge=1)


class Config(_Section):
    """All sections of the file."""

    azure: AzureConfig
    identity: IdentityConfig = IdentityConfig()
    compute: ComputeConfig = ComputeConfig()
    finetune: FineTuneConfig = FineTuneConfig()
    endpoint: EndpointConfig = EndpointConfig()
    tags: TagsConfig = Field(default_factory=TagsConfig)
    connection: Name = "phi3"


def load_config(file: Path | None = None) -> Config:
    """Read and check the configuration.

    Args:
        file: YAML file; None reads the file that PHI3_CONFIG names, or `phi3.yaml`. The latter may be
            missing if the environment variables suffice.

    Raises:
        OpsError: the file cannot be read, or a field is wrong; the error names both.
    """
    path = file or Path(os.environ.get(CONFIG_VARIABLE) or CONFIG_FILE)
    values = _read(path, required=file is not None or CONFIG_VARIABLE in os.environ)
    for variable, (section, field) in ENVIRONMENT.items():
        if os.environ.get(variable):
            values.setdefault(section, {})[field] = os.environ[variable]
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problem = _problem(error, path) if values else f"{path} does not exist"
        raise OpsError(problem, _fix(path)) from error


def _read(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        values = load_yaml(path) or {}
    except FileNotFoundError as error:
        if not required:
            return {}
        raise OpsError(f"{path} does not exist", _fix(path)) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise OpsError(f"cannot read {path}: {problem}", "It must be a YAML file.") from error
    has_sections = isinstance(values, dict) and all(
        isinstance(value, dict) or name == "connection" for name, value in values.items()
    )
    if not has_sections:
        raise OpsError(f"{path} is not a mapping of sections", "See scripts/phi3.example.yaml.")
    return dict(values)


def _problem(error: ValidationError, path: Path) -> str:
    names = [".".join(map(str, e["loc"])) for e in error.errors() if PLACEHOLDER in e["msg"]]
    if len(names) > 1:
        *others, last = (f"`{name}`" for name in names)
        return f"{path}: {', '.join(others)} and {last} are still placeholders; enter your values"
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    variables = {".".join(parts): name for name, parts in ENVIRONMENT.items()}
    hint = f" (or set {variables[field]})" if field in variables else ""
    return f"{path}: `{field}`: {reason[:1].lower()}{reason[1:]}{hint}{more}"


def _fix(path: Path) -> str:
    return "" if path.exists() else f"Copy {example_config()} to {path} and fill it in."


def example_config() -> Path:
    """Return the path of the example: short in a clone, complete elsewhere."""
    relative = paths.EXAMPLE_CONFIG.relative_to(paths.ROOT)
    return relative if relative.is_file() else paths.EXAMPLE_CONFIG
