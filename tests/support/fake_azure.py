"""Makes tests/fake_azure importable as `fake_azure`.

The folder tests itself cannot be on the path, because its folder phi3_ops would hide the package.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parents[1] / "fake_azure")]

from fake_azure.cloud import FakeAzure as FakeAzure  # noqa: E402
