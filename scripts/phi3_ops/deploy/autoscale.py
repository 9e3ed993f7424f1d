"""The Azure Monitor setting that adds and removes machines of a deployment.

Contract: "Autoscale online endpoints in Azure Machine Learning", and "Autoscale Settings - Create Or
Update" of Azure Monitor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..azure import AUTOSCALE_API_VERSION, SCALE_TAG, AutoscaleConfig, Cloud, Step, find_resource

# Metric of the configuration -> its name in Azure Monitor, and the resource that has it.
METRICS = {
    "cpu": ("CpuUtilizationPercentage", "deployment"),
    "gpu": ("GpuUtilizationPercentage", "deployment"),
    "latency": ("RequestLatency", "endpoint"),
    "requests": ("RequestsPerMinute", "endpoint"),
}
UNITS = {"cpu": " % CPU", "gpu": " % GPU", "latency": " ms", "requests": " requests/min"}
WINDOW = "PT5M"  # period over which a metric is averaged, and rest after each change


class Autoscale:
    """The autoscale setting of one deployment.

    Args:
        cloud: clients and configuration.
        endpoint: name of the endpoint.
        deployment: name of the deployment.
    """

    def __init__(self, cloud: Cloud, endpoint: str, deployment: str) -> None:
        self.cloud = cloud
        endpoint_path = f"{cloud.workspace_path}/onlineEndpoints/{endpoint}"
        self._resources = {
            "endpoint": endpoint_path,
            "deployment": f"{endpoint_path}/deployments/{deployment}",
        }
        self.name = f"{endpoint}-{deployment}"
        provider = f"{cloud.group_path}/providers/Microsoft.Insights"
        self._path = f"{provider}/autoscaleSettings/{self.name}"

    def step(self, config: AutoscaleConfig) -> Step:
        """Return the step that creates or updates the setting."""
        unit = UNITS[config.metric]
        what = (
            f"autoscale setting {self.name} ({_range_text(config)} machines, more above "
            f"{config.scale_out_above:g}{unit}, fewer below {config.scale_in_below:g}{unit})"
        )
        return Step(what, lambda: self._matches(config), lambda: self._write(config))

    def removal(self) -> Step | None:
        """Return the step that deletes the setting, or None if this product created none."""
        if not self._is_owned():
            return None
        return Step(f"autoscale setting {self.name}", lambda: False, self.delete, verb="remove")

    def delete(self) -> None:
        """Delete the setting if this product created it."""
        if self._is_owned():
            self.cloud.rest("DELETE", self._path, api=AUTOSCALE_API_VERSION)

    def body(self, config: AutoscaleConfig) -> dict[str, Any]:
        """Return the document that Azure Monitor gets."""
        capacity = {"minimum": str(config.min), "maximum": str(config.max)}
        profile = {
            "name": "default",
            "capacity": {**capacity, "default": str(config.min)},
            "rules": [
                self._rule(config, "GreaterThan", config.scale_out_above, "Increase"),
                self._rule(config, "LessThan", config.scale_in_below, "Decrease"),
            ],
        }
        return {
            "location": self.cloud.config.azure.location,
            "tags": {**self.cloud.tags(), SCALE_TAG: _range_text(config)},
            "properties": {
                "name": self.name,
                "enabled": True,
                "targetResourceUri": self._resources["deployment"],
                "profiles": [profile],
            },
        }

    def _rule(
        self, config: AutoscaleConfig, operator: str, threshold: float, direction: str
    ) -> dict[str, Any]:
        metric, level = METRICS[config.metric]
        trigger = {
            "metricName": metric,
            "metricResourceUri": self._resources[level],
            "timeGrain": "PT1M",
            "statistic": "Average",
            "timeWindow": WINDOW,
            "timeAggregation": "Average",
            "operator": operator,
            "threshold": threshold,
        }
        action = {"direction": direction, "type": "ChangeCount", "value": "1", "cooldown": WINDOW}
        return {"metricTrigger": trigger, "scaleAction": action}

    def _read(self) -> dict[str, Any]:
        answer = find_resource(
            lambda: self.cloud.rest("GET", self._path, api=AUTOSCALE_API_VERSION)
        )
        return answer or {}

    def _is_owned(self) -> bool:
        return self.cloud.owns(self._read().get("tags"))

    def _matches(self, config: AutoscaleConfig) -> bool:
        return _settings(self._read()) == _settings(self.body(config))

    def _write(self, config: AutoscaleConfig) -> None:
        self.cloud.rest("PUT", self._path, api=AUTOSCALE_API_VERSION, body=self.body(config))


def _range_text(config: AutoscaleConfig) -> str:
    return f"{config.min} to {config.max}"


def _settings(document: Mapping[str, Any]) -> list[Any]:
    """Return the parts of a setting that the configuration decides; Azure adds defaults to the others."""
    properties = document.get("properties") or {}
    settings: list[Any] = [properties.get("enabled")]
    for profile in properties.get("profiles") or []:
        settings += [profile["capacity"]["minimum"], profile["capacity"]["maximum"]]
        for rule in profile.get("rules") or []:
            trigger = rule["metricTrigger"]
            settings += [trigger["metricName"], trigger["operator"], float(trigger["threshold"])]
    return settings
