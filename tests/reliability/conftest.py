"""Shared by the tests of reliability: a running screener."""

from tests.appliance.conftest import daemon

__all__ = ["daemon"]
