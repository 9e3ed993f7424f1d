"""The libraries' configuration: offline, quiet, and without waiting."""

import ctypes
import logging
import os
import sys
import warnings

import environment
import pytest

VARIABLES = (
    "OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_LOGGING_LEVEL", "HF_HUB_OFFLINE",
)  # fmt: skip


@pytest.fixture
def no_variables(monkeypatch):
    """None of the variables is set; afterwards they, and the warning filters, are as before."""
    for name in VARIABLES:
        # Set before it is deleted, so that monkeypatch restores the variable in any case.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with warnings.catch_warnings():
        yield


def test_the_libraries_neither_wait_nor_ask_the_hub(no_variables):
    environment.configure_before_imports(offline=True, verbose=False)
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"
    assert os.environ["MLFLOW_LOGGING_LEVEL"] == "ERROR"
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("a library's warning", stacklevel=1)
    assert not caught


def test_verbose_leaves_messages_and_warnings(no_variables):
    warnings.simplefilter("always")
    environment.configure_before_imports(offline=False, verbose=True)
    assert "HF_HUB_OFFLINE" not in os.environ and "MLFLOW_LOGGING_LEVEL" not in os.environ
    with pytest.warns(UserWarning, match="a library's warning"):
        warnings.warn("a library's warning", stacklevel=1)


def test_variables_that_the_user_set_stay(no_variables, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    environment.configure_before_imports(offline=False, verbose=True)
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "7"


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is a function of glibc")
def test_glibc_keeps_freed_memory(monkeypatch):
    calls = []

    class Library:
        def mallopt(self, option, size):
            calls.append((option, size))

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    environment._keep_freed_memory()
    assert calls == list(environment.MALLOC_OPTIONS.items())


@pytest.mark.filterwarnings("ignore")
def test_the_libraries_are_silenced_unless_verbose(monkeypatch):
    import datasets
    import transformers

    verbosity = transformers.utils.logging.get_verbosity()
    logger = logging.getLogger("trl")
    monkeypatch.setattr(logger, "level", logging.INFO)
    try:
        environment.silence_libraries(verbose=True)
        assert logger.level == logging.INFO
        environment.silence_libraries(verbose=False)
        assert logger.level == logging.CRITICAL
        assert transformers.utils.logging.get_verbosity() == transformers.utils.logging.ERROR
        assert not datasets.is_progress_bar_enabled()
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
        transformers.utils.logging.enable_progress_bar()
        datasets.enable_progress_bars()
