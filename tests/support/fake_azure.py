"""Makes tests/fake_azure importable as `fake_azure`.

tests cannot be on the path itself: its folder phi3_ops would be found for the package.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parents[1] / "fake_azure")]

from fake_azure.cloud import FakeAzure as FakeAzure  # noqa: E402
