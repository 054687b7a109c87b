"""The node: consensus, journal, transport, storage engines, snapshots, configuration, CLI."""
