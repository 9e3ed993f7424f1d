"""The Azure subscription: configuration, clients, plans of changes, roles, quota, inventory, teardown.

It may import `pf` and `data`.
"""

from __future__ import annotations

from .cloud import (
    ARM,
    AUTOSCALE_API_VERSION,
    CONNECTIONS_API_VERSION,
    CREATED_BY_TAG,
    ENDPOINTS_API_VERSION,
    PRODUCT,
    SCALE_TAG,
    Cloud,
    is_created_by_us,
    state_text,
)
from .config import (
    CONFIG_FILE,
    CONFIG_VARIABLE,
    AutoscaleConfig,
    Config,
    EndpointConfig,
    load_config,
)
from .environments import azure_environments
from .faults import find_resource, named_errors
from .jobs import (
    COMPLETED,
    ENDED_BADLY,
    HASH_LENGTH,
    follow_job,
    newest_attempt,
    require_completed,
)
from .plan import Plan, Step
from .providers import unregistered_providers
from .provision import Provision, ProvisionOptions, registry_name
from .quota import (
    A100,
    ASK_FOR_QUOTA,
    QuotaLine,
    cluster_need,
    endpoint_need,
    flow_need,
    quota_lines,
    quota_notes,
    quota_shortage,
    refuse_retired,
    require_quota,
)
from .regions import read_sizes
from .roles import configured_identity, connection_reader_step, retry_while_roles_spread
from .sizes import CPU_IMAGE, has_gpu
from .status import StatusItem, read_status
from .teardown import ENDPOINT_ONLY, EVERYTHING, EXPIRING, RESOURCES_IN_USE, plan_teardown

__all__ = [
    "CONFIG_FILE",
    "CONFIG_VARIABLE",
    "A100",
    "ARM",
    "AUTOSCALE_API_VERSION",
    "AutoscaleConfig",
    "azure_environments",
    "SCALE_TAG",
    "has_gpu",
    "ASK_FOR_QUOTA",
    "COMPLETED",
    "CPU_IMAGE",
    "CONNECTIONS_API_VERSION",
    "CREATED_BY_TAG",
    "Cloud",
    "Config",
    "ENDED_BADLY",
    "ENDPOINTS_API_VERSION",
    "ENDPOINT_ONLY",
    "EVERYTHING",
    "EXPIRING",
    "EndpointConfig",
    "HASH_LENGTH",
    "PRODUCT",
    "Plan",
    "Provision",
    "ProvisionOptions",
    "QuotaLine",
    "RESOURCES_IN_USE",
    "StatusItem",
    "Step",
    "cluster_need",
    "configured_identity",
    "connection_reader_step",
    "endpoint_need",
    "find_resource",
    "flow_need",
    "follow_job",
    "is_created_by_us",
    "load_config",
    "named_errors",
    "newest_attempt",
    "plan_teardown",
    "quota_lines",
    "quota_notes",
    "quota_shortage",
    "read_sizes",
    "read_status",
    "refuse_retired",
    "registry_name",
    "require_completed",
    "require_quota",
    "retry_while_roles_spread",
    "state_text",
    "unregistered_providers",
]
