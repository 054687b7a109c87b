"""raftq beside what else people would take, with the same promise, in the same run.

Each peer is three nodes on loopback that acknowledge what a majority of them has on disk:
PostgreSQL with two standbys and a table as a queue, RabbitMQ with a quorum queue, NATS
JetStream with three replicas. All else is as their makers and Debian deliver it.

``comparison`` takes the turns, ``peer`` is what the peers have in common, ``processes``
starts and stops them. Each has a module of its own and one for the bytes on its wire.
"""
