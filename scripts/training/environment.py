"""What the libraries are told before and after they are imported, so that they neither wait nor chat."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import warnings

# M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h, in bytes; 32 MiB is the latter's maximum.
MALLOC = {-1: 512 * 2**20, -3: 32 * 2**20}


def prepare(offline: bool, verbose: bool) -> None:
    """Set what the libraries read while they are imported.

    Args:
        offline: the model is here; nothing is asked of the hub.
        verbose: leave them their messages.
    """
    _keep_memory()
    # Threads that spin while they wait slow a step tenfold as soon as anything else runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # Training waits while a tracking server is asked again; the default is minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if not verbose:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
        warnings.simplefilter("ignore")


def quieten(verbose: bool) -> None:
    """Leave standard error to train.py, unless asked: some libraries log what they are given."""
    if verbose:
        return
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in ("trl", "datasets", "huggingface_hub", "accelerate", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _keep_memory() -> None:
    """Have glibc keep what a step frees for the next one: a third off the tiny model's training.

    By default it hands large blocks back to the system, which clears them anew at every step.
    Source: mallopt(3).
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is not None and hasattr(library, "mallopt"):
        for parameter, size in MALLOC.items():
            library.mallopt(parameter, size)
