"""Fixtures that every test may ask for, and the tiers: tests marked `machines` run with --machines, and then alone."""

from __future__ import annotations

import time

import pytest

from tests.rig.fixtures import bank, bare_world, fresh_world, rig_tools, world

__all__ = ["bank", "bare_world", "fresh_world", "rig_tools", "world"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--machines", action="store_true", help="run what needs machines with kernels of their own")
    parser.addoption("--begin-before", type=float, metavar="TIME", help="skip tests that would begin after a UNIX time")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A run that has to end in time does not begin what might not."""
    before = item.config.getoption("--begin-before")
    if before is not None and time.time() > before:
        pytest.skip("it is too late to begin this: the run has to end in time (--begin-before)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = bool(config.getoption("--machines"))
    by_tier: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        by_tier[item.get_closest_marker("machines") is not None].append(item)
    config.hook.pytest_deselected(items=by_tier[not chosen])
    items[:] = by_tier[chosen]
