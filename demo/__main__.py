"""`python -m demo`: start both servers, fill them, say where everything is, and stop them at Ctrl-C."""

from __future__ import annotations

import argparse
import fcntl
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import IO

from demo import people, processes
from demo.processes import DemoError, Server
from sandbox.control import Sandbox
from settings import ROOT


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description="The app and the sandbox, with sample data.")
    parser.add_argument("--port", type=int, default=8000, help="where the app listens (default: %(default)s)")
    parser.add_argument("--sandbox-port", type=int, default=12111, help="where the sandbox listens (%(default)s)")
    parser.add_argument("--folder", type=Path, default=ROOT / "instance" / "demo", help="its data; emptied first")
    wanted = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):  # both, as a shell's background jobs are started deaf to Ctrl-C
        signal.signal(number, _interrupt)
    try:
        with ExitStack() as stack:
            stack.enter_context(_alone(wanted.folder))
            servers = _start(stack, wanted)
            _watch(servers)
    except KeyboardInterrupt:
        _say("Stopped.")
        return 0
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, flush=True)


def _alone(folder: Path) -> IO[str]:
    """Empty the folder, which one demo at a time may use. Raises DemoError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f"{folder.name}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise DemoError(f"A demo is running already in {folder}.") from None
    if (folder / "spillway.db").exists() or not folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
    elif any(folder.iterdir()):
        lock.close()
        raise DemoError(f"{folder} is no demo's: choose an empty --folder.")
    folder.mkdir(parents=True, exist_ok=True)
    return lock


def _start(stack: ExitStack, wanted: argparse.Namespace) -> tuple[Server, Server]:
    port, sandbox_port = processes.free_port(wanted.port), processes.free_port(wanted.sandbox_port)
    app_url, sandbox_url = (f"http://{processes.LOOPBACK}:{number}" for number in (port, sandbox_port))
    environ = processes.environment(wanted.folder, port, sandbox_url)
    offers = (ROOT / "services" / "catalog" / "default.toml", ROOT / "demo" / "more.toml")
    (wanted.folder / "catalog.toml").write_text("\n".join(file.read_text() for file in offers))
    _say("Starting the sandbox and the app …")
    sandbox = processes.start_sandbox(wanted.folder, sandbox_port, app_url)
    stack.callback(sandbox.stop)
    processes.flask(environ, "db", "upgrade")
    app = processes.start_app(wanted.folder, environ)
    stack.callback(app.stop)
    sandbox.wait_for("/")
    app.wait_for("/readyz")
    _say("Sending the catalog to the sandbox, as a team would to Stripe …")
    processes.flask(environ, "catalog", "push")
    _fill(app_url, sandbox_url, environ)
    _say(_summary(app_url, sandbox_url, wanted.folder))
    return sandbox, app


def _fill(app_url: str, sandbox_url: str, environ: dict[str, str]) -> None:
    people.sign_up(app_url, people.OPERATOR, "The team")
    processes.flask(environ, "operators", "add", people.OPERATOR)
    scopes = "read,write,billing,admin"
    token = processes.flask(environ, "tokens", "create", "--service", "--scopes", scopes, "--name", "demo")
    api, sandbox = people.Api(app_url, token.split()[-1]), Sandbox(sandbox_url)
    for customer in people.CUSTOMERS:
        _say(f"{customer.name}: {customer.story} …")
        people.live_a_month(app_url, api, sandbox, customer)


def _watch(servers: tuple[Server, ...]) -> None:
    """Until Ctrl-C. Raises DemoError when one of them ends by itself."""
    while True:
        time.sleep(1)
        for server in servers:
            if not server.is_running:
                raise DemoError(f"{server.name} has ended:\n{server.tail()}")


def _summary(app: str, sandbox: str, folder: Path) -> str:
    log_ins = "\n".join(f"    {one.email:22} {one.name}, {one.story}" for one in people.CUSTOMERS)
    return f"""
Ready. Nothing here is real: no money, no mail, no Stripe account.

  {app}/pricing      plans and credits; sign up there and buy as anybody
  {app}/usage        what a customer sees
  {app}/admin        what the team sees
  {app}/api/docs     the API
  {sandbox}             the sandbox, in Stripe's place

  Log in with the password “{people.PASSWORD}”:
    {people.OPERATOR:22} the team's operator
{log_ins}

  Cards: 4242 4242 4242 4242 pays, 4000 0000 0000 0002 is declined, 4000 0025 0000 3155 asks for 3-D Secure.
  Logs and data: {folder} (emptied by the next demo)

Ctrl-C stops both.
"""


if __name__ == "__main__":
    sys.exit(main())
