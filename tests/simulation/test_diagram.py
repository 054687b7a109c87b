"""A trace can be read: as lines, and as a page that is whole, safe and of a bounded size."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from raftq.consensus import messages as m
from raftq.replica import wire
from simulation import diagram as page_of
from simulation.diagram import diagram, lines
from simulation.narration import LASTING, PASSING, TEXT_MAX, Kind, Role, narrate, turns
from simulation.plan import FAULTS, Clock, Fault, Workload, make
from simulation.run import Result, run
from simulation.trace import Record
from simulation.world import World
from statemachine import commands as c

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> & \u2028 \ud800 \x1b[2J"


# Records as rows and lines.


def note(kind: str, text: str = "", node: str = "n1", at: float = 1.0) -> Record:
    return Record(at, kind, node, "", text, b"", at)


def sent(
    frame: m.RaftMessage | wire.Frame,
    at: float,
    sent_at: float,
    source: str = "n1",
    to: str = "n2",
) -> Record:
    whole = frame if isinstance(frame, wire.Frame) else wire.Raft(0, frame)
    return Record(at, "frame", source, to, "", wire.encode(whole), sent_at)


CHANGED = "leader changed {'leader': %r, 'term': 4, 'role': %r}"
NOTES = [
    (note("start"), Kind.START, "started"),
    (note("crash"), Kind.CRASH, "its process ended"),
    (note("crash", "power"), Kind.POWER, "lost power: what was not synced may be gone"),
    (note("failed", "OSError(5)"), Kind.FAILED, "stopped itself: OSError(5)"),
    (note("pause"), Kind.PAUSE, "paused: its process stands still"),
    (note("resume"), Kind.RESUME, "resumed"),
    (note("wipe"), Kind.WIPE, "lost its disk, gets an empty one"),
    (note("rot", "data/term bit 9"), Kind.ROT, "rot in data/term bit 9"),
    (note("answer", "12 Claimed"), Kind.ANSWER, "request 12 was answered: Claimed"),
    (note("violation", "two leaders"), Kind.VIOLATION, "VIOLATION: two leaders"),
    (
        note("fault", "cut n2 3.5 0.25"),
        Kind.FAULT,
        "fault, cut: frames from n1 to n2 vanish for 3.5 s",
    ),
    (note("fault", "transfer n2 0.0 0.25"), Kind.FAULT, "fault, transfer: n1 is asked to hand "),
    (note("fault", "meteor n2 1.0 0.25"), Kind.FAULT, "fault, meteor: on n1, n2"),
    (note("fault", "of another form"), Kind.NOTE, "fault of another form"),
    (note("log", CHANGED % ("n1/00ff00ff00ff00ff", "leader")), Kind.LEADER, "leads term 4"),
    (
        note("log", CHANGED % ("n2/00ff00ff00ff00ff", "follower")),
        Kind.LEADER,
        "follows n2/00ff in term 4",
    ),
    (
        note("log", CHANGED % (None, "candidate")),
        Kind.LEADER,
        "knows no leader in term 4, is candidate",
    ),
    (note("log", "swept {'count': 1}"), Kind.LOG, "log: swept: count 1"),
    (note("log", "odd {'x': <object>}"), Kind.LOG, "log: odd {'x': <object>}"),
    (note("something new", "x"), Kind.NOTE, "something new x"),
]


@pytest.mark.parametrize(("record", "kind", "text"), NOTES)
def test_a_note_in_words(record: Record, kind: Kind, text: str) -> None:
    (row,) = narrate([record])
    assert row.kind is kind
    assert row.text.startswith(text)


def test_every_kind_of_row_is_in_these_tables() -> None:
    frames = (
        m.VoteReply(3, True),
        m.Append(2, 7, 1, 6),
        wire.Propose(0, b""),
        wire.SnapshotFetch(0, 9, 0, 0),
        wire.Hello(0, "", "", (), "", "", ""),
        wire.State(0, "follower", 2, 41),
    )
    records = [record for record, _, _ in NOTES] + [sent(one, 2.0, 1.0) for one in frames]
    # What a fault's end is told by comes from the plan.
    assert {row.kind for row in narrate(records)} == {*Kind} - {Kind.OVER}


def test_every_fault_of_a_plan_has_words() -> None:
    assert {*LASTING, *PASSING} == {*FAULTS}
    assert not {*LASTING} & {*PASSING}


def test_a_reply_that_repeats_the_last_one_is_quiet() -> None:
    one, other = m.AppendReply(2, 8, True), m.AppendReply(2, 9, True)
    records = [sent(one, 1, 1), sent(one, 2, 2), sent(one, 2, 2, to="n3"), sent(other, 3, 3)]
    kinds = [row.kind for row in narrate(records)]
    assert kinds == [Kind.REPLICATION, Kind.QUIET, Kind.REPLICATION, Kind.REPLICATION]


def test_lines_say_when_who_and_what() -> None:
    records = [
        note("start"),
        sent(m.VoteReply(3, True), 1.0005, 1.0),
        sent(m.Beat(3), 3.5, 1.0, "n2", "n1"),
    ]
    assert list(lines(records)) == [
        "   1.000000  n1        started",
        "   1.000500  n1 > n2   Vote granted in term 3  (sent 1.000000, took 0.500 ms)",
        "   3.500000  n2 > n1   sign of life, term 3  (sent 1.000000, took 2.500 s)",
    ]


def test_a_line_is_one_line_that_a_terminal_cannot_obey_and_has_an_end() -> None:
    (line,) = lines([note("log", f"{HOSTILE}\n{'x' * 5000}")])
    assert line.isprintable()
    assert len(line) < TEXT_MAX + 200
    assert line.endswith("characters more)")


def test_the_lines_of_a_small_world() -> None:
    world = World(5, keep_trace=True)
    world.start()
    world.until(world.settled, 10, "a leader")
    leader = world.leader()
    assert leader is not None
    follower = next(node for node in world.alive if node is not leader)
    message = c.NewMessage(b"hello", "text/plain")
    answers = follower.submit(c.Enqueue("a", "q0", (message,)))
    world.until(lambda: bool(answers), 10, "an answer")
    leader.crash(power=True)
    world.until(lambda: world.leader() not in (None, leader), 10, "another leader")
    told_of = list(lines(world.trace.records))
    assert len(told_of) == len(world.trace.records)
    assert all(line.isprintable() for line in told_of)
    story = [
        rf" {leader.name} +started",
        rf" {leader.name} > \w+ +Hello from ",
        rf" {leader.name} > \w+ +Pre-vote: would you vote for me in term 1\? ",
        rf" {leader.name} > \w+ +Vote for me in term 1\? ",
        rf" \w+ > {leader.name} +Vote granted in term 1 ",
        rf" {leader.name} +leads term 1",
        rf" {follower.name} > {leader.name} +Propose session \d+ seq 1, 1 command: Enqueue q0 "
        r"b'hello' 5 B ",
        rf" {leader.name} > {follower.name} +Append term 1: \d+ \[term 1: session \d+ seq 1, ",
        rf" {leader.name} +lost power",
        r" +leads term 2",
    ]
    rest = iter(told_of)
    for pattern in story:
        assert any(re.search(pattern, line) for line in rest), pattern


# Who was what.


def test_a_lane_knows_what_its_node_was() -> None:
    rows = list(
        narrate(
            [
                note("start", at=0.0),
                note("log", "replica started {'members': [], 'term': 0}", at=0.0),
                note("log", "cluster founded {'members': ['n1']}", at=0.5),
                sent(m.VoteRequest(1, 0, 0), 1.1, 1.0),
                note("log", CHANGED % ("n1/00ff00ff00ff00ff", "leader"), at=1.2),
                note("pause", at=2.0),
                note("resume", at=3.0),
                note("crash", at=4.0),
                sent(m.Append(4, 0, 0, 0), 5.0, 3.5),
                note("start", at=6.0),
            ]
        )
    )
    known = turns(rows, ("n1", "n2"))
    assert [(turn.row, turn.role) for turn in known["n1"]] == [
        (0, Role.DOWN),
        (0, Role.FOLLOWER),
        (1, Role.JOINING),
        (2, Role.FOLLOWER),
        (3, Role.CANDIDATE),
        (4, Role.LEADER),
        (5, Role.PAUSED),
        (6, Role.LEADER),
        (7, Role.DOWN),
        (9, Role.FOLLOWER),
    ]
    assert [turn.role for turn in known["n2"]] == [Role.DOWN]


# The page.


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.inside.append((self.tags[-1][0] if self.tags else "", data))

    @property
    def text(self) -> str:
        """Without scripts and styles."""
        return " ".join(text for tag, text in self.inside if tag not in ("script", "style"))

    @property
    def data(self) -> dict[str, list]:
        """What the script reads."""
        scripts = [text for tag, text in self.inside if tag == "script" and text.startswith("{")]
        return json.loads(scripts[0])


PLAN = msgspec.structs.replace(
    make(11, nodes=3),
    seconds=3.0,
    workload=Workload(2, 0.1, 1, 50, {"put": 1.0, "claim": 1.0}),
    clocks=(Clock(1.0, 0.0, 0),) * 3,
    faults=(
        Fault(1.0, "isolate", seconds=0.8),
        Fault(1.2, "slow disk", node="n2", seconds=9.0),
        Fault(1.4, "pause", node="n1", other="n2", seconds=0.5),
        Fault(2.0, "power", node="n3", seconds=0.5),
    ),
)


@pytest.fixture(scope="module")
def result() -> Result:
    return run(PLAN, keep_trace=True)


@pytest.fixture(scope="module")
def page(result: Result) -> Page:
    return Page(diagram(result, "a title", "no promise was broken"))


def kinds_of(data: dict[str, list]) -> list[str]:
    return [data["kinds"][row[1]] for row in data["rows"]]


def test_the_page_has_a_row_for_each_record(result: Result, page: Page) -> None:
    assert result.violation is None
    data = page.data
    # Besides: the ends of the isolation and of all faults; the slow disk's time ends later.
    assert len(data["rows"]) == len(result.records) + 2
    assert kinds_of(data).count("over") == 2
    assert [row[0] for row in data["rows"]] == sorted(row[0] for row in data["rows"])
    assert data["lanes"] == ["", "n1", "n2", "n3"]
    for expected in ("start", "power", "pause", "resume", "fault", "leader", "election", "answer"):
        assert expected in kinds_of(data)


def test_lasting_faults_have_a_bar_each_until_the_faults_end(page: Page) -> None:
    rows, bars = page.data["rows"], page.data["bars"]
    spans = [(rows[first][0], rows[last][0], slot) for first, last, slot in bars]
    assert [start for start, _, _ in spans] == [1.0, 1.2]
    assert spans[0][1] == pytest.approx(1.8)
    assert spans[1][1] == pytest.approx(3.0)
    assert spans[0][2] != spans[1][2]


def test_the_page_tells_plan_counts_and_verdict(result: Result, page: Page) -> None:
    for said in ("a title", "no promise was broken", result.hash, "isolate", "slow disk", "tuning"):
        assert said in page.text.replace("Tuning", "tuning")
    assert f"{result.requests:,}" in page.text
    jumps = [attributes["data-at"] for _, attributes in page.tags if "data-at" in attributes]
    assert jumps == ["1.0", "1.2", "1.4", "2.0"]
    for state in result.reached:
        assert state in page.text


def test_all_that_can_be_hidden_is_a_checkbox(page: Page) -> None:
    boxes = [a for tag, a in page.tags if tag == "input" and a.get("type") == "checkbox"]
    kinds = page.data["kinds"]
    hidden = [
        kinds[kind]
        for box, group in zip(boxes, page.data["groups"], strict=True)
        for kind in group
        if "checked" not in box
    ]
    assert hidden == ["quiet"]


def test_the_page_asks_for_nothing_from_elsewhere(result: Result) -> None:
    text = diagram(result, "t", "v")
    loads = {"src", "href", "srcset", "action", "data", "poster", "background"}
    for _, attributes in Page(text).tags:
        assert not loads & {*attributes}
    assert "default-src 'none'" in text
    for word in ("://", "url(", "@import", "fetch(", "XMLHttpRequest", "import("):
        assert word not in text


def test_what_a_run_says_stays_text(result: Result) -> None:
    record = note("log", f"{HOSTILE} {{'x': 1}}", at=0.0)
    hostile = result._replace(violation=HOSTILE, records=[record, *result.records])
    text = diagram(hostile, HOSTILE, HOSTILE)
    assert text.encode()
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert not [tag for tag, _ in page.tags if tag in ("img", "a", "iframe", "link")]
    assert "<img src=x" in page.data["rows"][0][3]
    assert "alert(1)" in page.text


def test_a_violation_has_a_row_of_its_own(result: Result) -> None:
    late = result._replace(violation="liveness: no leader")
    data = Page(diagram(late, "t", "v")).data
    assert data["rows"][-1][3] == "VIOLATION: liveness: no leader"
    assert kinds_of(data)[-1] == "violation"
    noted = late._replace(
        records=[*result.records, note("violation", "liveness", at=result.seconds)]
    )
    assert kinds_of(Page(diagram(noted, "t", "v")).data).count("violation") == 1


def test_the_same_run_gives_the_same_page(result: Result) -> None:
    assert diagram(result, "t", "v") == diagram(run(PLAN, keep_trace=True), "t", "v")


def test_a_page_is_bounded_whatever_a_run_says(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_of, "ROWS_MAX", 200)
    huge = [note("log", "\u2028" * 50_000, at=0.1)] * 5_000 + result.records
    text = diagram(result._replace(records=huge, violation="broken"), "t", "v")
    page = Page(text)
    data = page.data
    assert len(text) < 200_000
    assert len(data["rows"]) == 200
    assert "the first" in page.text
    assert "not in it" in page.text
    assert data["rows"][-1][3] == "VIOLATION: broken"
    for known in data["turns"]:
        assert known[0][0] == 0
        assert all(0 <= row < 200 for row, _, _ in known)
    assert all(0 <= first <= last < 200 for first, last, _ in data["bars"])


def test_a_text_has_a_bounded_size_on_the_page(result: Result) -> None:
    whole = len(diagram(result, "t", "v"))
    more = [note("log", "\u2028" * 50_000, at=0.1)] * 50 + result.records
    assert len(diagram(result._replace(records=more), "t", "v")) < whole + 50 * 8 * TEXT_MAX


def test_a_run_without_a_trace_has_a_page_too() -> None:
    page = Page(diagram(run(PLAN), "t", "v"))
    assert "No trace was kept." in page.text
    assert page.data["rows"] == []


# In a browser.


@pytest.fixture(scope="module")
def drawn(result: Result, tmp_path_factory: pytest.TempPathFactory) -> str:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium here to draw the page")
    folder: Path = tmp_path_factory.mktemp("diagram")
    (folder / "page.html").write_text(diagram(result, "t", "v"), encoding="utf-8")
    switches = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
    ]
    done = subprocess.run(
        [chromium, *switches, (folder / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return done.stdout


def test_a_browser_draws_the_first_rows(result: Result, drawn: str) -> None:
    rows = [attributes for _, attributes in Page(drawn).tags if attributes.get("role") == "option"]
    assert rows[0]["class"] == "row start"
    assert 20 < len(rows) < 200 < int(rows[0]["aria-setsize"] or 0)
    assert "row quiet" not in {row["class"] for row in rows}
    assert re.search(rf"[\d,]+ of {len(result.records) + 2:,} rows", Page(drawn).text)
    assert re.search(r'<polygon class="point greeting" points="[^"]*\d', drawn)
    assert "NaN" not in drawn.split('id="drawing"')[1].split("</svg>")[0]
