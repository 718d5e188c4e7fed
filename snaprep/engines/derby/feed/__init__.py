"""A replica that is fed the log: its two ends, Derby's replication protocol, and the change to Derby's own."""
