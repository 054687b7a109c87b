"""One attempt to post a message: what is sent, how it ended, and when the next one is due."""

from __future__ import annotations

import asyncio
import random
import ssl
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from api.bodies import Opened
from api.ports import Delivery
from api.webhooks import signing
from api.webhooks.sender import Answer, Header, NoAnswer, Sender
from api.webhooks.targets import Forbidden, Rules
from statemachine.commands import SubscriptionSettings
from statemachine.hooks import SubscriptionView
from statemachine.ids import message_id_text
from statemachine.outcomes import Delivered
from statemachine.records import StoredMessage

MESSAGE_HEADER = b"raftq-header-"  # As a raw GET of the message has it.
DOUBLINGS_MAX = 40
ERROR_LENGTH_MAX = 200

# Spread, not secret: so that messages that failed together do not come back together.
_chance = random.Random()  # noqa: S311  # see above


class Ended(NamedTuple):
    """How an attempt ended."""

    how: Delivery
    error: str = ""
    retry_after: str = ""


async def attempt(
    sender: Sender,
    rules: Rules,
    view: SubscriptionView,
    given: Delivered,
    opened: Opened,
    now_ms: int,
) -> Ended:
    """Post the message once, within the subscription's timeout."""
    if opened.unreadable is not None:
        return Ended(Delivery.UNREADABLE, str(opened.unreadable))
    timeout_s = view.settings.timeout_ms / 1000
    try:
        target = rules.target(view.settings.url)
        headers, body = request(view, given, opened.stored, now_ms)
        async with asyncio.timeout(timeout_s):
            return _judged(await sender.post(target, headers, body))
    except Forbidden as error:
        return Ended(Delivery.FORBIDDEN, str(error))
    except TimeoutError:
        return Ended(Delivery.TIMEOUT, f"no answer within {timeout_s:g} s")
    except NoAnswer as error:
        return Ended(Delivery.UNREACHABLE, str(error)[:ERROR_LENGTH_MAX])
    except ssl.SSLError as error:
        return Ended(Delivery.UNREACHABLE, f"TLS: {error}"[:ERROR_LENGTH_MAX])
    except OSError as error:
        return Ended(Delivery.UNREACHABLE, (error.strerror or str(error))[:ERROR_LENGTH_MAX])


def request(
    view: SubscriptionView, given: Delivered, stored: StoredMessage, now_ms: int
) -> tuple[list[Header], bytes]:
    """The headers and the body of a request."""
    account, queue, name = view.names
    text = message_id_text(given.id)
    webhook_id, timestamp_s = signing.webhook_id(account, queue, text), now_ms // 1000
    headers = {
        **dict(view.settings.headers),
        "content-type": stored.content_type,
        **({"content-encoding": stored.content_encoding} if stored.content_encoding else {}),
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signing.sign(view.secret, webhook_id, timestamp_s, stored.body),
        "raftq-account": account,
        "raftq-queue": queue,
        "raftq-subscription": name,
        "raftq-message": text,
        "raftq-deliveries": str(given.deliveries),
    }
    own = [(key.encode(), value.encode()) for key, value in headers.items()]
    of_message = [
        (MESSAGE_HEADER + key.lower().encode(), value.encode()) for key, value in stored.headers
    ]
    return [*own, *of_message], stored.body


def delay_ms(settings: SubscriptionSettings, deliveries: int, ended: Ended, now_ms: int) -> int:
    """When the message may be claimed again: later each time, or as late as the receiver asks."""
    doublings = min(max(deliveries - 1, 0), DOUBLINGS_MAX)
    longest_ms = min(settings.retry_base_ms << doublings, settings.retry_max_ms)
    spread_ms = round(longest_ms * _chance.uniform(0.75, 1.0))
    asked_ms = retry_after_ms(ended.retry_after, now_ms)
    return max(1, spread_ms, min(asked_ms, settings.retry_max_ms))


def retry_after_ms(text: str, now_ms: int) -> int:
    """The meaning of ``Retry-After``: seconds, or a date; 0 if it means nothing."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text) * 1000
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0
    if at.tzinfo is None:
        return 0
    return max(0, round(at.timestamp() * 1000) - now_ms)


def _judged(answer: Answer) -> Ended:
    status = answer.status
    error = f"the receiver answered {status}"
    if 200 <= status < 300:
        return Ended(Delivery.DELIVERED)
    if status == 410:
        return Ended(Delivery.GONE, "the receiver answered 410 Gone")
    if status in (429, 503):
        return Ended(Delivery.BUSY, error, answer.retry_after)
    if 300 <= status < 400:
        return Ended(Delivery.REJECTED, f"{error}: redirects are not followed")
    if status < 500:
        return Ended(Delivery.REJECTED, error, answer.retry_after)
    return Ended(Delivery.FAILED, error, answer.retry_after)
