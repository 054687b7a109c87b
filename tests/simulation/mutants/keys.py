"""Mutants of access keys and of the audit log."""

from __future__ import annotations

from simulation.mutants.damage import Edit, Mutant, mutant
from statemachine import access_keys, auditing

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "revoked-key-acts-on",
        "Whoever was let in before his key was revoked may do what he came for.",
        Edit(auditing, "run_audited", "if command.key and ", "if False and "),
    ),
    mutant(
        "refusal-not-written",
        "What was refused is not in the audit log.",
        Edit(
            auditing,
            "run_audited",
            "_append(state, _record(",
            "isinstance(outcome, Refused) or _append(state, _record(",
        ),
    ),
    mutant(
        "rotation-without-grace",
        "The secret before this one is forgotten at once.",
        Edit(access_keys, "rotate", "before=found.hash", 'before=b""'),
    ),
    mutant(
        "revocation-by-half",
        "A revoked key is still in the list of its account.",
        Edit(
            access_keys,
            "_delete",
            "state.kv.delete(keys.access_key_of(account, key_id))",
            "pass",
        ),
    ),
    mutant(
        "key-made-again",
        "A key that comes a second time takes the place of the first.",
        Edit(access_keys, "put", "if found is not None:", "if False:"),
    ),
)
