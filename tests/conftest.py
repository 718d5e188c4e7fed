"""Fixtures that every test may ask for, and the tiers: tests marked `machines` run with --machines, and then alone."""

from __future__ import annotations

import pytest

from tests.rig.fixtures import bank, bare_world, fresh_world, rig_tools, world

__all__ = ["bank", "bare_world", "fresh_world", "rig_tools", "world"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--machines", action="store_true", help="run what needs machines with kernels of their own")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = bool(config.getoption("--machines"))
    by_tier: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        by_tier[item.get_closest_marker("machines") is not None].append(item)
    config.hook.pytest_deselected(items=by_tier[not chosen])
    items[:] = by_tier[chosen]
