"""How ids of messages and claims look to clients: hex digits, and nothing else."""

from __future__ import annotations

from statemachine.commands import MessageId


def message_id_text(message_id: MessageId) -> str:
    """Twenty hex digits."""
    return message_id.hex()


def message_id_from_text(text: str) -> MessageId | None:
    """Inverse of ``message_id_text``; None for anything else."""
    return _from_hex(text, 20)


def claim_text(claim: int) -> str:
    """Sixteen hex digits."""
    return f"{claim:016x}"


def claim_from_text(text: str) -> int | None:
    """Inverse of ``claim_text``; None for anything else."""
    data = _from_hex(text, 16)
    return None if data is None else int.from_bytes(data, "big")


def _from_hex(text: str, digits: int) -> bytes | None:
    if len(text) != digits or text.strip("0123456789abcdef"):  # Something else is left over.
        return None
    return bytes.fromhex(text)
