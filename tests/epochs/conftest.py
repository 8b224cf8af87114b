"""Both networks with the served app between them, and a backup of either that can be restored."""

from tests.verification.conftest import served, verification_networks, world

__all__ = ["served", "verification_networks", "world"]
