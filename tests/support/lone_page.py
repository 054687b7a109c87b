"""What must be true of every page that is written: whole, and without anything from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

ELSEWHERE = re.compile(r"(src|href)=|url\(|@import|<script|https?:")


def assert_stands_alone(text: str) -> None:
    """It closes what it opens, and refers to nothing."""
    assert _Open().left(text) == []
    assert not ELSEWHERE.search(text)


class _Open(HTMLParser):
    """The elements that a page opens and does not close, in order."""

    def left(self, text: str) -> list[str]:
        self.stack: list[str] = []
        self.feed(text)
        self.close()
        return self.stack

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"</{tag}> closes something else"
