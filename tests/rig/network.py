"""Point-to-point cables between nodes: veth pairs that live only inside the nodes' namespaces, with an
address on either end, a rate, and a cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.rig.node import RigError

if TYPE_CHECKING:
    from tests.rig.node import Node

NOBODY = "02:00:00:ff:ff:ff"
BURST_KB = 256
QUEUE_MS = 50


@dataclass(slots=True, kw_only=True)
class Cable:
    """One pair. `rate_mbit` and `cut` are what a reboot of either end has to put back."""

    number: int
    ends: tuple[Node, Node]
    rate_mbit: float | None = None
    cut: bool = False
    plugged: bool = field(default=False, init=False)

    def address(self, node: Node) -> str:
        return f"10.91.{self.number}.{self._index(node) + 1}"

    def peer(self, node: Node) -> Node:
        return self.ends[1 - self._index(node)]

    def interface(self, node: Node) -> str:
        return f"to-{self.peer(node).name}"

    def mac(self, node: Node) -> str:
        return f"02:00:00:91:{self.number:02x}:{self._index(node) + 1:02x}"

    def _index(self, node: Node) -> int:
        return self.ends.index(node)


def plug(cable: Cable) -> None:
    """Makes the pair, when both ends are powered on, with the rate and the cut that it had before."""
    a, b = cable.ends
    if not (a.is_up and b.is_up) or cable.plugged:
        return
    pair = f"link add {cable.interface(a)} address {cable.mac(a)} type veth"
    _ip(a, f"{pair} peer name {cable.interface(b)} address {cable.mac(b)} netns {b.pid}")
    for node in cable.ends:
        name = cable.interface(node)
        _ip(node, f"addr add {cable.address(node)}/30 dev {name}", f"link set {name} up")
    cable.plugged = True
    if cable.rate_mbit is not None:
        set_rate(cable, cable.rate_mbit)
    if cable.cut:
        cut(cable)


def unplugged(cable: Cable) -> None:
    """To be told when an end was powered off: its interface, and so the pair, is gone."""
    cable.plugged = False


def set_rate(cable: Cable, rate_mbit: float | None) -> None:
    """Limits both directions to `rate_mbit`, or lifts the limit with None."""
    cable.rate_mbit = rate_mbit
    for node in cable.ends:
        name = cable.interface(node)
        if rate_mbit is None:
            node.run(["tc", "qdisc", "del", "dev", name, "root"], check=False)
        else:
            shape = ["rate", f"{rate_mbit}mbit", "burst", f"{BURST_KB}k", "latency", f"{QUEUE_MS}ms"]
            node.run(["tc", "qdisc", "replace", "dev", name, "root", "tbf", *shape])


def cut(cable: Cable) -> None:
    """From now on whatever either end sends is lost without a word, as behind a dead switch: it goes to
    a hardware address that nobody has. Routes stay, so connections hang rather than fail.
    """
    cable.cut = True
    _address_peers(cable, to_nobody=True)


def heal(cable: Cable) -> None:
    cable.cut = False
    _address_peers(cable, to_nobody=False)


def set_carrier(cable: Cable, *, up: bool) -> None:
    """Takes the interfaces of both ends down (connecting then fails at once) or up again."""
    for node in cable.ends:
        _ip(node, f"link set {cable.interface(node)} {'up' if up else 'down'}")


def _address_peers(cable: Cable, *, to_nobody: bool) -> None:
    if not cable.plugged:
        return
    for node in cable.ends:
        peer = cable.peer(node)
        mac = NOBODY if to_nobody else cable.mac(peer)
        _ip(node, f"neigh replace {cable.address(peer)} lladdr {mac} dev {cable.interface(node)} nud permanent")


def loopback(node: Node) -> None:
    _ip(node, "link set lo up")


def _ip(node: Node, *commands: str) -> None:
    done = node.ip("\n".join(commands))
    if done.returncode != 0:
        raise RigError(f"{node.name}: ip {commands}: {done.stderr.strip()}")
