"""Fixtures that every test may ask for."""

from __future__ import annotations

from tests.rig.fixtures import bank, bare_world, fresh_world, rig_tools, world

__all__ = ["bank", "bare_world", "fresh_world", "rig_tools", "world"]
