"""Fixtures of the network agent's host, for the modules that ask for them."""

from tests.real.network_rig import agent, host, metadata, namespace

__all__ = ["agent", "host", "metadata", "namespace"]
