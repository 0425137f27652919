"""`python -m benchmarks`: all rows in alternating rounds, then the tables. Exit 1 when a figure can not be trusted."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import plan, report, rows, stores
from benchmarks.figures import BenchmarkError
from benchmarks.progress import Ticker
from benchmarks.report import Observation, Result
from benchmarks.site import FULL_ACCOUNTS, Pace, Site, bare_servers, open_site

_WHOLE = Pace(warm_up=0.5, seconds=2.0, rounds=5, accounts=1000, full=5_000_000)
_LEAST_FULL = 10 * FULL_ACCOUNTS
_WIDTH = 150
"""Columns of the tables where no terminal says how many there are."""
_QUICK = Pace(warm_up=0.3, seconds=1.0, rounds=2, accounts=200)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short and few: does it run, not how fast is it")
    parser.add_argument("--database", choices=(*stores.KINDS, "both"), default="both")
    parser.add_argument("--rows", metavar="NAME,…", help=f"only these: {', '.join(rows.NAMES)}")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each row is measured (5)")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long one measurement takes (2)")
    parser.add_argument("--full", type=int, metavar="RECORDS", help="old records of the full books (5000000; 0: none)")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="then watch the memory")
    parser.add_argument("--folder", type=Path, help="where the databases are made: a disk, not memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there too")
    chosen = parser.parse_args()
    if chosen.rows is not None:
        chosen.rows = chosen.rows.split(",")
        unknown = sorted(set(chosen.rows) - set(rows.NAMES))
        if unknown:
            parser.error(f"no such row: {', '.join(unknown)}")
    if chosen.full and chosen.full < _LEAST_FULL:
        parser.error(f"--full is 0 or {_LEAST_FULL} at least: ten records for each of {FULL_ACCOUNTS:,} accounts")
    if (chosen.rounds or 1) < 1 or (chosen.seconds or 1) < 0.5:
        parser.error("at least one round, and half a second a measurement")
    return chosen


def _pace(chosen: argparse.Namespace) -> Pace:
    pace = _QUICK if chosen.quick else _WHOLE
    return Pace(
        warm_up=pace.warm_up,
        seconds=chosen.seconds or pace.seconds,
        rounds=chosen.rounds or pace.rounds,
        accounts=pace.accounts,
        full=pace.full if chosen.full is None else chosen.full,
        soak=chosen.soak,
    )


def _refuse_memory(folder: Path) -> None:
    """A commit to a file system in memory costs nothing. Raises BenchmarkError."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return
    covering = [mount for mount in mounts if folder.resolve().is_relative_to(mount[1])]
    kind = max(covering, key=lambda mount: len(mount[1]))[2] if covering else ""
    if kind in ("tmpfs", "ramfs"):
        raise BenchmarkError(f"{folder} is kept in memory ({kind}): name a folder on a disk with --folder")


def _announce(plans: dict[str, list[rows.Row]], pace: Pace, folder: Path, console: Console) -> None:
    """Say what the run will take. Raises BenchmarkError when the disk has no room for it."""
    needs = plan.needs(plans, rounds=pace.rounds, each=pace.warm_up + pace.seconds, full=pace.full, soak=pace.soak)
    free = shutil.disk_usage(folder).free / 1e9
    filling = f" ({needs.filling:.0f} of them to write {pace.full:,} old records)" if pace.full else ""
    told = f"About {needs.minutes:.0f} minutes{filling} and {needs.gigabytes:.1f} GB in {folder}"
    console.print(f"{told}, which has {free:.0f} GB free; all of it is removed in the end.", soft_wrap=True)
    if free < needs.gigabytes * 1.2:
        raise BenchmarkError(f"{folder} is too full: name another folder with --folder, or take fewer --full records")


def _measure(site: Site, result: Result, steps: list[rows.Row], number: int, ticker: Ticker) -> None:
    """One round; the odd ones go backwards, so that a drift of the machine does not favour anyone."""
    places = list(enumerate(steps))
    ticker.tell(f"{site.store.kind}, round {number + 1}")
    for place, row in places if number % 2 == 0 else reversed(places):
        ticker.show(f"{site.store.kind}, round {number + 1}: {row.title}")
        result.observations.append(Observation(number, place, row, site.measure(row)))
        ticker.advance()


def _run(chosen: argparse.Namespace, folder: Path, console: Console) -> list[Result]:
    pace = _pace(chosen)
    kinds = stores.KINDS if chosen.database == "both" else (chosen.database,)
    plans = {kind: plan.one_round(kind, chosen.rows, quick=chosen.quick, full=bool(pace.full)) for kind in kinds}
    if not plan.has_full(plans):
        pace = replace(pace, full=0)
    _announce(plans, pace, folder, console)
    results: list[Result] = []
    with ExitStack() as stack:
        ticker = stack.enter_context(Ticker(console, pace.rounds * sum(map(len, plans.values()))))
        bare = stack.enter_context(bare_servers(folder))
        sites = []
        for kind in kinds:
            sites.append(stack.enter_context(open_site(kind, pace, folder / kind, bare, ticker.about(kind))))
        results = [Result(site.store.kind, site.store.version()) for site in sites]
        for number in range(pace.rounds):
            for site, result in zip(sites, results, strict=True):
                _measure(site, result, plans[site.store.kind], number, ticker)
        for site, result in zip(sites, results, strict=True):
            ticker.tell(f"{site.store.kind}: memory under load, then the books")
            site.soak()
            site.finish()
            result.memory, result.records = site.memory, site.records
    return results


def _about(chosen: argparse.Namespace) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "quick": chosen.quick,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_average_before": os.getloadavg()[0],
    }


def _end(_signal: int, _frame: object) -> None:
    raise SystemExit(143)


def main() -> int:
    """Measure, show, write. What was started is ended and what was written is removed, whatever happens."""
    chosen = _arguments()
    signal.signal(signal.SIGTERM, _end)
    beside, console = Console(stderr=True), Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    about = _about(chosen)
    try:
        with tempfile.TemporaryDirectory(prefix="spillway-bench-", dir=chosen.folder) as name:
            _refuse_memory(Path(name))
            results = _run(chosen, Path(name), beside)
    except BenchmarkError as error:
        beside.print(f"The figures can not be trusted: {error}", markup=False, style="red")
        return 1
    console.print(
        "{command}  at {at}, {cores} cores, Python {python}, load {load_average_before:.1f} before".format(**about)
    )
    report.show(console, results)
    if chosen.quick:
        console.print("This was --quick: it shows that all rows run, not how fast they are.")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(report.as_json(results, about), indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
