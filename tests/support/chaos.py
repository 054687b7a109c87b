"""Faults on a real cluster, at random but repeatable: what ``make chaos`` runs.

Three nodes run on hosts of their own (``hosts``, ``host_cluster``) under producers and
consumers through all of them (``chaos_load``). Faults come as planned from the seed
(``chaos_plan``), each is undone and recovered from before the next. At the end the queue is
drained, the history checked and the nodes' states compared; one page tells it all.

Exit status: 0 when nothing is wrong, 1 when something is, 2 when it cannot run here.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import chaos_faults
import hosts
from chaos_load import PacedWorkload, RoutedLoop, counts
from chaos_numbers import Injected, latencies_ms, outages, percentile, seconds
from chaos_plan import Kind, Step, plan
from chaos_report import Facts, page
from cluster import ROOT, Settings
from cluster_state import OBSERVABLE, assert_nothing_was_truncated, assert_same_state
from history import History, check
from host_cluster import SMALL, HostCluster
from hosts import Hosts
from sabotage import SABOTAGES

NAMES = ("n1", "n2", "n3")
PRODUCERS, CONSUMERS = 24, 18
WARM_UP = 200  # Puts before the first fault.
RECOVERY_S = 60.0
DRAIN_S = 180.0
LISTED_MAX = 20
REPORT = ROOT / "reports" / "chaos.html"
CANNOT_RUN = 2

in_thread = asyncio.to_thread
Say = Callable[[str], None]


@dataclass
class Run:
    """What has happened so far."""

    say: Say
    history: History = field(default_factory=History)
    faults: list[Injected] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    drained: bool = False
    from_s: float = 0.0
    until_s: float = 0.0

    def complain(self, what: str) -> None:
        self.broken.append(what)
        self.say(f"WRONG: {what}")

    def complaints(self) -> list[str]:
        """Everything that is wrong; a history that was not drained cannot be checked."""
        if not self.drained:
            return [*self.broken, "the queue was not drained, so the history was not checked"]
        return [*self.broken, *map(str, check(self.history))]


def run(cluster: HostCluster, steps: Sequence[Step], limit_s: float, run: Run, **load: int) -> None:
    """The whole story of a cluster that is not started yet; ``run`` is filled in."""
    loop = functools.partial(RoutedLoop, cluster.routes)
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_story(cluster, steps, limit_s, run, load))


async def _story(
    cluster: HostCluster, steps: Sequence[Step], limit_s: float, run: Run, load: dict[str, int]
) -> None:
    try:
        await in_thread(lambda: cluster.start().wait_ready())
        ports = list(cluster.routes)
        async with PacedWorkload(
            ports, producers=PRODUCERS, consumers=CONSUMERS, **load
        ) as clients:
            run.history = clients.history
            run.from_s = time.monotonic()
            try:
                await _disturb(cluster, steps, limit_s, run, clients)
                run.say("faults are over; draining")
                await clients.finish(deadline_s=DRAIN_S)
                run.drained = True
            except AssertionError as error:
                run.complain(str(error))
            run.until_s = time.monotonic()
        if run.drained:
            await in_thread(_compare, cluster, run)
    finally:
        # Whatever thread still waits for the cluster must not keep us.
        cluster.abandon()


async def _disturb(
    cluster: HostCluster, steps: Sequence[Step], limit_s: float, run: Run, clients: PacedWorkload
) -> None:
    await clients.acknowledges(WARM_UP)
    for step in steps:
        if time.monotonic() - run.from_s + step.hold_s > limit_s:
            break
        await _one(cluster, step, run, clients)


async def _one(cluster: HostCluster, step: Step, run: Run, clients: PacedWorkload) -> None:
    injection = chaos_faults.fault(cluster, step)
    asked_s = time.monotonic()
    victim = "?"
    try:
        victim = await in_thread(injection.__enter__)
        clients.fault(f"{step.kind.value}: {victim}")
        from_s = clients.history.faults[-1].at_s
        try:
            await clients.holds(step.hold_s)
        except BaseException as error:
            # The run ends here; the fault must not outlive it.
            injection.__exit__(type(error), error, error.__traceback__)
            raise
        await in_thread(injection.__exit__, None, None, None)
    except chaos_faults.Misbehaved as error:
        from_s = asked_s
        run.complain(f"{step.kind.value}: {error}")
    until_s = time.monotonic()
    run.faults.append(Injected(step.kind, victim, from_s, until_s))
    clients.fault(f"end of: {step.kind.value}")
    await in_thread(_settle, cluster, step, run)
    await clients.recovers(deadline_s=RECOVERY_S)
    so_far = " ".join(f"{name}={count}" for name, count in counts(clients.history).items())
    took_s = time.monotonic() - until_s
    held_s = until_s - from_s
    run.say(f"{step.kind.value} ({victim}), {held_s:.1f} s, well after {took_s:.1f} s; {so_far}")
    await clients.holds(step.calm_s)


def _settle(cluster: HostCluster, step: Step, run: Run) -> None:
    """Everybody runs and is ready; nobody may have ended whom the fault did not end."""
    for node in cluster:
        if not node.running:
            run.complain(f"{node.name} ended with {node.exit_code()} during: {step.kind.value}")
            cluster.start(node.name)
    cluster.wait_ready(deadline_s=RECOVERY_S)


def _compare(cluster: HostCluster, run: Run) -> None:
    for compare in (assert_same_state, assert_nothing_was_truncated):
        try:
            compare(cluster)
        except AssertionError as error:
            run.complain(str(error))


def settings() -> Settings:
    """Small files, and states that can be compared."""
    merged = {name: dict(keys) for name, keys in OBSERVABLE.items()}
    for section, keys in SMALL.items():
        merged.setdefault(section, {}).update(keys)
    return merged


def facts(run: Run, repeat: str, begun: str) -> Facts:
    """What the page is made of."""
    complaints = run.complaints()
    took_ms = latencies_ms(run.history.puts)
    by_second = seconds(run.history, run.from_s, run.until_s)
    served = sum(one.acknowledged > 0 for one in by_second)
    spreads = [("median", 0.5), ("99th percentile", 0.99), ("99.9th", 0.999), ("slowest", 1.0)]
    numbers = [
        *((name, f"{count:,}") for name, count in counts(run.history).items()),
        ("violations", f"{len(complaints):,}"),
        *((name, f"{percentile(took_ms, share):,.1f} ms") for name, share in spreads),
        ("seconds with a write", f"{100 * served / len(by_second):.1f} %"),
    ]
    verdict = "nothing is wrong" if not complaints else f"{len(complaints)} violations"
    return Facts(
        verdict=verdict,
        good=not complaints,
        complaints=complaints[:LISTED_MAX],
        counts=numbers,
        repeat=repeat,
        begun=begun,
        from_s=run.from_s,
        seconds=by_second,
        faults=run.faults,
        outages=outages(run.history, run.faults, run.until_s),
    )


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos ARGS=...", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=120, help="how long (%(default)s)")
    parser.add_argument("--seed", type=int, help="the faults and their order; random unless given")
    parser.add_argument("--puts-per-s", type=int, default=250, help="in all (%(default)s)")
    names = [kind.name.lower() for kind in Kind]
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="KIND",
        help=f"repeatable: {', '.join(names)}",
    )
    parser.add_argument("--report", type=Path, default=REPORT, help="the page (reports/chaos.html)")
    parser.add_argument(
        "--sabotage", choices=sorted(SABOTAGES), help="run a broken build, to see it found out"
    )
    return parser.parse_args(given)


def _prepare() -> None:
    """Root and all tools, or SystemExit."""
    if os.geteuid() != 0:
        print("make chaos needs root, for network namespaces: sudo make chaos", file=sys.stderr)
        raise SystemExit(CANNOT_RUN)
    missing = hosts.missing_packages()
    if missing and shutil.which("apt-get"):
        print(f"installing {' '.join(missing)} with apt-get ...", flush=True)
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "-qq", "update"], env=quiet)
        install = ["apt-get", "-qq", "-y", "install", *missing]
        subprocess.run(install, env=quiet, stdout=subprocess.DEVNULL)
    reason = hosts.unavailable()
    if reason is not None:
        print(f"make chaos cannot run here: {reason}", file=sys.stderr)
        raise SystemExit(CANNOT_RUN)


def _keep_logs(cluster: HostCluster, report: Path) -> None:
    for node in cluster:
        if node.log_path.exists():
            shutil.copy(node.log_path, report.with_name(f"chaos-{node.name}.log"))


def main(given: Sequence[str]) -> int:
    """Run it; the exit status."""
    asked = _arguments(given)
    _prepare()
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    kinds = tuple(Kind[name.upper()] for name in asked.only or ()) or tuple(Kind)
    only = "".join(f" --only {name}" for name in asked.only or ())
    pace = f" --puts-per-s {asked.puts_per_s}"
    repeat = f"make chaos ARGS='--seconds {asked.seconds:g} --seed {seed}{pace}{only}'"
    begun = datetime.now(UTC)
    print(f"{repeat}\n", flush=True)

    def say(what: str) -> None:
        print(f"{(datetime.now(UTC) - begun).total_seconds():7.1f} s  {what}", flush=True)

    # SIGTERM ends it as Ctrl-C does, with everything taken down.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    so_far = Run(say)
    asked.report.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            group = stack.enter_context(Hosts(NAMES))
        except hosts.Busy as busy:
            print(busy, file=sys.stderr)
            return CANNOT_RUN
        cluster = stack.enter_context(
            HostCluster(group, settings=settings(), sabotage=asked.sabotage)
        )
        steps = plan(seed, asked.seconds, kinds)
        run(cluster, steps, asked.seconds, so_far, puts_per_s=asked.puts_per_s, seed=seed)
        told = facts(so_far, repeat, f"{begun:%Y-%m-%d %H:%M} UTC")
        asked.report.write_text(page(told))
        if not told.good:
            _keep_logs(cluster, asked.report)
    for complaint in told.complaints:
        print(f"  {complaint}")
    print(f"{told.verdict}; {', '.join(f'{value} {name}' for name, value in told.counts)}")
    print(asked.report)
    return 0 if told.good else 1


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("stopped; everything is taken down", file=sys.stderr)
        raise SystemExit(130) from None
