"""Run the contract suite on every filesystem that can be run here."""

from tests.volumes.contract import (  # noqa: F401
    TestFacts,
    TestFailBack,
    TestPoints,
    TestServing,
    TestSpace,
    TestStreams,
    TestWhatIsNotOurs,
)
