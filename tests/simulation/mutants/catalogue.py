"""All mutants, by name."""

from __future__ import annotations

from itertools import chain

from simulation.mutants import (
    arrangements,
    elections,
    features,
    keys,
    logs,
    nodes,
    queues,
    quotas,
    replication,
    settling,
    stores,
)
from simulation.mutants.damage import Mutant

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant
    for mutant in chain(
        elections.MUTANTS,
        replication.MUTANTS,
        logs.MUTANTS,
        stores.MUTANTS,
        nodes.MUTANTS,
        queues.MUTANTS,
        quotas.MUTANTS,
        keys.MUTANTS,
        features.MUTANTS,
        arrangements.MUTANTS,
        settling.MUTANTS,
    )
}
