"""`flask …`: each command is one service call. Exit 0 when all is well, 1 when something was found, 2 on wrong use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from flask import Flask, current_app
from flask.cli import AppGroup, with_appcontext
from rich.console import Console
from rich.progress import Progress

import database
import errors
from jobs import registry
from jobs.scheduler import Scheduler
from models.stripe import EventStatus
from models.token import SCOPES
from services import accounts, backup, people, tokens, verify
from services.stripe import catalog as stripe_catalog
from services.stripe import inbox, moves, pull, push, reconcile


class Group(AppGroup):
    """Commands that need the database, and say in one line when it is not there."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (errors.DatabaseBusy, *database.UNREADABLE) as error:
            told = str(getattr(error, "orig", error)).partition("\n")[0]
            hint = "see DATABASE_URL, and `flask --app app db upgrade` for a new one"
            raise _wrong_use(ValueError(f"the database can not be used ({hint}): {told}")) from None


operators = Group("operators", help="People of the team that runs Spillway.")
tokens_group = Group("tokens", help="Access tokens.")
accounts_group = Group("accounts", help="Paying tenants.")
catalog_group = Group("catalog", help="Plans, prices and rates.")
jobs_group = Group("jobs", help="Scheduled work.")
scheduler_group = Group("scheduler", help="The scheduler on its own.")
ledger_group = Group("ledger", help="The books.")
stripe_group = Group("stripe", help="What Stripe has, held against the books.")
inbox_group = Group("inbox", help="Events that Stripe told.")


def _wrong_use(error: errors.SpillwayError | ValueError | OSError) -> SystemExit:
    click.echo(f"error: {error}", err=True)
    return SystemExit(2)


def _found(told: str) -> SystemExit:
    click.echo(told, err=True)
    return SystemExit(1)


def _at_most(limit: int) -> Callable[[click.Context, click.Parameter, str], str]:
    """Refuses an empty name, and one that the database has no room for."""

    def check(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
        if not value.strip() or len(value) > limit:
            raise click.BadParameter(f"must have 1 to {limit} characters")
        return value

    return check


@operators.command("add")
@click.argument("email")
def add_operator(email: str) -> None:
    """Make EMAIL an operator; a new person gets a link to set a password."""
    try:
        user, link = people.add_operator(email)
    except errors.SpillwayError as error:
        raise _wrong_use(error) from None
    click.echo(f"{user.email} is an operator.")
    if link:
        click.echo(f"To set a password, once and within the hour: {link}")


@tokens_group.command("create")
@click.option("--service", is_flag=True, required=True, help="A token of the operator, for any account.")
@click.option("--scopes", required=True, help=f"Comma-separated: {','.join(SCOPES)}")
@click.option("--name", required=True, callback=_at_most(100))
def create_token(service: bool, scopes: str, name: str) -> None:
    """Make a service token; it is printed this once, alone on the last line."""
    try:
        _, secret = tokens.create(account_id=None, name=name, scopes=[s.strip() for s in scopes.split(",")])
    except errors.SpillwayError as error:
        raise _wrong_use(error) from None
    click.echo(secret)


@accounts_group.command("create")
@click.option("--external-id", required=True, help="Your own id for the account.")
@click.option("--name", required=True, callback=_at_most(200))
@click.option("--email")
def create_account(external_id: str, name: str, email: str | None) -> None:
    """Make an account, or find the one with this external id; prints its id."""
    try:
        external_id = accounts.checked_external_id(external_id)
        account, _ = accounts.create_by_operator(external_id, name, people.normalized(email) if email else None)
    except errors.SpillwayError as error:
        raise _wrong_use(error) from None
    click.echo(account.id)


@catalog_group.command("lint")
def lint_catalog() -> None:
    """Find mistakes in the catalog, in Stripe or the file; 1 when there are some."""
    try:
        findings = stripe_catalog.lint()
    except errors.StripeUnavailable as error:
        raise _found(stripe_catalog.told(error)) from None
    for finding in findings:
        click.echo(str(finding))
    if findings:
        raise SystemExit(1)
    click.echo("No mistakes found.")


@catalog_group.command("sync")
def sync_catalog() -> None:
    """Take the catalog in from its source; 1 when it can not be read."""
    result = stripe_catalog.sync()
    if result.error:
        click.echo(f"Not taken in, version {result.version} stays in force: {result.error}", err=True)
        raise SystemExit(1)
    click.echo(f"Version {result.version} {'taken in' if result.changed else 'is in force already'}.")
    if result.findings:
        click.echo(f"{len(result.findings)} mistakes were left out: see `catalog lint`.", err=True)


@catalog_group.command("push")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
def push_catalog(dry_run: bool) -> None:
    """Create or update Stripe's products and prices from the catalog file.

    Nothing at Stripe is ever deleted. An amount can not be edited there: a new price takes the place of the old one,
    which is archived.
    """
    try:
        plan = push.plan()
    except errors.StripeNotConfigured:
        raise _wrong_use(ValueError("STRIPE_SECRET_KEY is not set")) from None
    except push.Mistaken as mistaken:
        raise _found("\n".join(map(str, mistaken.findings))) from None
    except errors.StripeUnavailable as error:
        raise _found(stripe_catalog.told(error)) from None
    for line in (*(step.line for step in plan.steps), *plan.notes):
        click.echo(line)
    if not plan.steps:
        click.echo("Stripe has all of the file.")
    elif dry_run:
        click.echo(f"{len(plan.steps)} changes, none of them made.")
    else:
        _push(plan)


@catalog_group.command("pull")
def pull_catalog() -> None:
    """Write the catalog file from Stripe's products and prices; the file before is kept as .bak."""
    try:
        path, changed = pull.pull()
    except errors.StripeNotConfigured:
        raise _wrong_use(ValueError("STRIPE_SECRET_KEY is not set")) from None
    except errors.StripeUnavailable as error:
        raise _found(stripe_catalog.told(error)) from None
    except OSError as error:
        raise _wrong_use(error) from None
    click.echo(f"{path} {'is written' if changed else 'says the same already'}.")


def _push(plan: push.Plan) -> None:
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("changes", total=len(plan.steps))
        try:
            for done, _ in enumerate(push.carry_out(plan), start=1):
                bar.update(task, completed=done)
        except errors.StripeUnavailable as error:
            told = stripe_catalog.told(error)
            raise _found(f"{told}\nRun it again: what was done is not done twice.") from None
    result = stripe_catalog.sync()
    click.echo(f"{len(plan.steps)} changes made; version {result.version} is in force.")


@jobs_group.command("list")
def list_jobs() -> None:
    """Each job, when it last ran and what came of it."""
    runs = registry.last_runs()
    for name in registry.JOBS:
        last = runs.get(name)
        told = f"{last.started_at:%Y-%m-%dT%H:%M:%SZ} {last.outcome} {last.detail or ''}" if last else "never"
        click.echo(f"{name:20} {told}".rstrip())


@jobs_group.command("run")
@click.argument("name", type=click.Choice(list(registry.JOBS)))
def run_job(name: str) -> None:
    """Run one job now."""
    result = registry.run(current_app._get_current_object(), name, by_hand=True)  # type: ignore[attr-defined]
    click.echo(f"{name}: {result.outcome} {result.detail or ''}".rstrip())


@stripe_group.command("move")
@click.option("--to", "price", required=True, help="The price at Stripe that they are to have.")
@click.option("--from", "from_price", help="Everybody who is on this price.")
@click.option("--account", "refs", multiple=True, help="Only this account, by id or external id; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Only say who it would be.")
def move_subscribers(price: str, from_price: str | None, refs: tuple[str, ...], dry_run: bool) -> None:
    """Move chosen subscribers to a price, or to what their price says today. Everybody else keeps their terms."""
    if from_price is None and not refs:
        raise click.UsageError("Choose them: --from PRICE, --account ACCOUNT, or both.")
    try:
        rows = moves.chosen(from_price, moves.account_ids(refs))
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
            task = bar.add_task("subscribers", total=len(rows))
            moved = moves.move(
                rows, price, dry_run=dry_run, progress=lambda done, _total: bar.update(task, completed=done)
            )
    except errors.SpillwayError as error:
        raise _wrong_use(error) from None
    for one in moved:
        click.echo(f"{one.account} {one.subscription}: from {one.tier} ({one.price}) to {price}")
    click.echo(f"{len(moved)} subscribers " + ("would be moved." if dry_run else "moved."))


@stripe_group.command("reconcile")
@click.option("--days", type=click.IntRange(1, 365), default=reconcile.DAYS, show_default=True, help="How far back.")
@click.option("--repair", is_flag=True, help="Write what differs, as the events would have.")
def reconcile_stripe(days: int, repair: bool) -> None:
    """Hold what Stripe lists against the books; 1 when something differs (with --repair: still differs)."""
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("objects")
        try:
            report = reconcile.reconcile(
                days, repair=repair, progress=lambda done, total: bar.update(task, completed=done, total=total)
            )
        except errors.SpillwayError as error:
            raise _wrong_use(error) from None
    for drift in report.drifts:
        click.echo(str(drift))
    told = f"{len(report.drifts)} differences" if report.drifts else "in agreement"
    click.echo(f"{report.checked} objects of the last {days} days: {told}" + _backfilled(report.backfilled))
    if report.left:
        raise SystemExit(1)


def _backfilled(events: int) -> str:
    return f"; {events} events that never came were handled" if events else ""


@inbox_group.command("list")
@click.option("--status", type=click.Choice([status.value for status in EventStatus]), help="Only of this status.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
def list_inbox(status: str | None, limit: int) -> None:
    """The newest events: when they came, what they told, what became of them."""
    for event in inbox.listing(limit, status):
        told = f"{event.id}  {event.received_at:%Y-%m-%dT%H:%M:%SZ}  {event.status:9}  {event.type}  {event.object_id}"
        click.echo(f"{told}  attempts={event.attempts}" + (f"  {event.error}" if event.error else ""))


@inbox_group.command("replay")
@click.argument("event_id", metavar="ID")
def replay_event(event_id: str) -> None:
    """Handle an event of the inbox now, dead or not; 1 when it fails again. One that was handled is left alone."""
    try:
        outcome = inbox.replay(event_id)
    except errors.NotFound as error:
        raise _wrong_use(error) from None
    except errors.SpillwayError as error:
        click.echo(f"{event_id}: failed: {error}", err=True)
        raise SystemExit(1) from None
    click.echo(f"{event_id}: {outcome}")


@scheduler_group.command("run")
def run_scheduler() -> None:
    """Run the scheduler alone, until it is told to stop."""
    Scheduler(current_app._get_current_object()).run()  # type: ignore[attr-defined]


@ledger_group.command("verify")
def verify_ledger() -> None:
    """Recompute every lot and balance from the ledger; 1 on any difference."""
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("accounts")
        report = verify.verify(lambda done, total: bar.update(task, completed=done, total=total))
    for difference in report.differences:
        click.echo(str(difference))
    click.echo(
        f"{report.accounts} accounts, {report.lots} lots, {report.entries} entries, {report.records} usage records: "
        + (f"{len(report.differences)} differences" if report.differences else "all in order")
    )
    if report.differences:
        raise SystemExit(1)


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@with_appcontext
def backup_command(file: Path) -> None:
    """Copy the SQLite database to FILE, consistently, beside a running server."""
    try:
        backup.copy_to(file)
    except (ValueError, OSError) as error:
        raise _wrong_use(error) from None
    click.echo(f"Backed up to {file}.")


def register(app: Flask) -> None:
    """Add the commands to the app."""
    commands: tuple[Any, ...] = (
        operators,
        tokens_group,
        accounts_group,
        catalog_group,
        jobs_group,
        scheduler_group,
        ledger_group,
        stripe_group,
        inbox_group,
        backup_command,
    )
    for command in commands:
        app.cli.add_command(command)
