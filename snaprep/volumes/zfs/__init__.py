"""The ZFS volume: by the `zfs` command, and by OpenZFS's C library where the agent can call it."""
