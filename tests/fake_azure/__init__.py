"""A fake Azure on loopback, in which the unmodified clients and scripts run: see README.md."""

from .cloud import FakeAzure as FakeAzure
