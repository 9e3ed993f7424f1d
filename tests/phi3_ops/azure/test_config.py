"""phi3.yaml: an error names the wrong field, and environment variables win."""

from __future__ import annotations

import re

import pytest
import yaml

from phi3_ops import paths
from phi3_ops.azure.config import CONFIG_VARIABLE, ENVIRONMENT, load_config
from phi3_ops.errors import OpsError

SUBSCRIPTION = "11111111-1111-4111-8111-111111111111"
GOOD = {"azure": {"subscription_id": SUBSCRIPTION, "resource_group": "rg", "workspace": "ws-one"}}


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in (*ENVIRONMENT, CONFIG_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def write(tmp_path, values):
    file = tmp_path / "mine.yaml"
    file.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return file


def changed(path, value):
    section, _, name = path.rpartition(".")
    values = {**GOOD, section: {**GOOD.get(section, {}), name: value}}
    return values if section else {**GOOD, name: value}


def test_defaults(tmp_path):
    config = load_config(write(tmp_path, GOOD))
    assert config.azure.location == "eastus2"
    assert (config.compute.size, config.compute.idle_seconds) == ("Standard_NC24ads_A100_v4", 120)
    assert config.tags.expires_days == 7


BAD = {
    "azure.subscription_id": "nonsense",
    "azure.resource_group": "",
    "azure.workspace": "x",
    "azure.location": "<your-region>",
    "identity.name": "a b",
    "compute.name": "1st",
    "compute.size": "",
    "compute.max_instances": 0,
    "compute.idle_seconds": 1,
    "compute.low_priority": "perhaps",
    "finetune.recipe": "",
    "finetune.instances": 0,
    "endpoint.name": "ends-with-",
    "endpoint.model": "<your-model>",
    "endpoint.auth": "password",
    "endpoint.instances": 0,
    "endpoint.variant": "onnx",
    "endpoint.max_model_len": 1,
    "tags.owner": "",
    "tags.expires_days": 0,
    "azure.tenant": "unknown field",
    "connection": "<name>",
}


@pytest.mark.parametrize("path", BAD)
def test_a_bad_field_is_named(tmp_path, path):
    file = write(tmp_path, changed(path, BAD[path]))
    with pytest.raises(OpsError) as error:
        load_config(file)
    assert f"{file}: `{path}`:" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"min": 1, "max": 0}, "autoscale.max"),
        ({"max": 2, "metric": "memory"}, "autoscale.metric"),
        ({"min": 3, "max": 2}, "autoscale`: max 2 is less than min 3"),
        ({"max": 3, "scale_in_below": 70}, "autoscale`: scale_in_below 70 is not less than"),
    ],
)
def test_limits_of_autoscale_are_checked(tmp_path, limits, field):
    file = write(tmp_path, changed("endpoint.autoscale", limits))
    with pytest.raises(OpsError, match=f"`endpoint.{field}"):
        load_config(file)


@pytest.mark.parametrize(
    ("endpoint", "variant"),
    [
        ({}, "vllm"),
        ({"size": "Standard_DS3_v2"}, "score"),
        ({"variant": "score"}, "score"),
        ({"variant": "mlflow", "size": "Standard_DS3_v2"}, "mlflow"),
    ],
)
def test_the_variant_that_is_served(tmp_path, endpoint, variant):
    config = load_config(write(tmp_path, {**GOOD, "endpoint": endpoint}))
    assert config.endpoint.served_variant == variant


@pytest.mark.parametrize("field", ["subscription_id", "resource_group", "workspace"])
def test_a_placeholder_is_refused_and_the_variable_named(tmp_path, field):
    file = write(tmp_path, changed(f"azure.{field}", f"<your-{field}>"))
    variables = {where: name for name, where in ENVIRONMENT.items()}
    with pytest.raises(OpsError, match="is still the placeholder") as error:
        load_config(file)
    assert f"`azure.{field}`" in str(error.value)
    assert variables["azure", field] in str(error.value)


def test_the_shipped_example_lacks_three_fields():
    example = paths.ROOT / "scripts" / "phi3.example.yaml"
    with pytest.raises(OpsError, match="subscription_id`, .*resource_group` and .*workspace` are"):
        load_config(example)


def test_the_shipped_example_has_the_defaults(monkeypatch, tmp_path):
    for (section, name), variable in {
        where: name for name, where in ENVIRONMENT.items() if where[0] == "azure"
    }.items():
        monkeypatch.setenv(variable, GOOD[section].get(name, "eastus2"))
    monkeypatch.setenv("PHI3_OWNER", "me")
    example = load_config(paths.ROOT / "scripts" / "phi3.example.yaml")
    assert example == load_config()


@pytest.mark.parametrize("variable", ENVIRONMENT)
def test_the_environment_wins(monkeypatch, tmp_path, variable):
    section, name = ENVIRONMENT[variable]
    value = SUBSCRIPTION.replace("1", "2") if name == "subscription_id" else "from-outside"
    monkeypatch.setenv(variable, value)
    config = load_config(write(tmp_path, GOOD))
    assert getattr(getattr(config, section), name) == value


def test_the_environment_suffices(monkeypatch):
    for name in ("subscription_id", "resource_group", "workspace"):
        variable = {where: key for key, where in ENVIRONMENT.items()}["azure", name]
        monkeypatch.setenv(variable, GOOD["azure"][name])
    assert load_config().azure.workspace == "ws-one"


def test_outside_of_a_clone_the_example_is_named_with_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OpsError, match=re.escape(f"Copy {paths.EXAMPLE_CONFIG} to phi3.yaml")):
        load_config()


def test_without_file_and_environment_it_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "phi3.example.yaml").touch()  # as in a clone
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        OpsError, match=r"phi3\.yaml does not exist\. Copy scripts/phi3\.example\.yaml"
    ):
        load_config()


def test_the_variable_names_the_file(monkeypatch, tmp_path):
    monkeypatch.setenv(CONFIG_VARIABLE, str(write(tmp_path, GOOD)))
    assert load_config().azure.resource_group == "rg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("azure: [", "cannot read"),
        ("- a", "not a mapping of sections"),
        ("azure: 5", "not a mapping of"),
    ],
)
def test_a_file_that_is_not_a_configuration(tmp_path, text, message):
    with pytest.raises(OpsError, match=message):
        load_config(write(tmp_path, text))


def test_a_named_file_must_exist(tmp_path):
    with pytest.raises(OpsError, match="does not exist"):
        load_config(tmp_path / "none.yaml")
