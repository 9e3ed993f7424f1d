"""Fine-tuning: on this machine, as an Azure ML job, or as a job of the model catalog.

It may import `azure`, `flows`, `endpoint` and the rooms below them.
"""

from __future__ import annotations

from .catalog import (
    DEFAULT_MODEL,
    RETIRED_MODELS,
    RETIRED_ON,
    CatalogRequest,
    CatalogSubmission,
    catalog_settings,
)
from .estimate import describe_alternatives, estimate_table, estimate_training
from .job import MODEL_OUTPUT, JobRequest, JobSubmission, Submission, latest_completed
from .local import (
    CACHE_NAMES,
    DEFAULT_RECIPE,
    METRICS_FILE,
    PRETRAINED_RECIPE,
    TrainingMetrics,
    base_and_tuned_table,
    base_model_of,
    finetune_locally,
)
from .running import stop_trainings

__all__ = [
    "CACHE_NAMES",
    "CatalogRequest",
    "CatalogSubmission",
    "DEFAULT_MODEL",
    "DEFAULT_RECIPE",
    "JobRequest",
    "JobSubmission",
    "METRICS_FILE",
    "MODEL_OUTPUT",
    "PRETRAINED_RECIPE",
    "RETIRED_MODELS",
    "RETIRED_ON",
    "Submission",
    "TrainingMetrics",
    "base_and_tuned_table",
    "base_model_of",
    "catalog_settings",
    "describe_alternatives",
    "estimate_table",
    "estimate_training",
    "finetune_locally",
    "latest_completed",
    "stop_trainings",
]
