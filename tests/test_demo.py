"""`make demo` as a newcomer meets it: both servers, people with a past, and everything sold and bought for show."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo import people, processes
from demo.people import Person
from settings import ROOT
from tests.servers import free_port

pytestmark = pytest.mark.slow


class Demo:
    """A running demo; `out` is what it has printed."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.sandbox_port = folder, port, free_port()
        self.url = f"http://127.0.0.1:{port}"
        arguments = ["--folder", str(folder), "--port", str(port), "--sandbox-port", str(self.sandbox_port)]
        self.printed = folder.parent / "printed"
        with self.printed.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "demo", *arguments], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
            )

    @property
    def out(self) -> str:
        return self.printed.read_text()

    def wait(self, said: str) -> None:
        deadline = time.monotonic() + 150
        while said not in self.out:
            assert self.process.poll() is None, self.out
            assert time.monotonic() < deadline, self.out
            time.sleep(0.2)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@contextmanager
def running(folder: Path, said: str = "Ctrl-C stops both.") -> Iterator[Demo]:
    """A demo that has come so far as to say this."""
    demo = Demo(folder, free_port())
    try:
        demo.wait(said)
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.interrupt()


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_demo_starts_sells_and_stops_and_starts_again(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with running(folder) as demo:
        pricing = page(f"{demo.url}/pricing")
        assert "$49.00" in pricing
        assert "not set up" not in pricing
        acme = Person(demo.url)
        acme.send("/login", email="acme@demo.example", password=people.PASSWORD)
        usage = acme.read("/usage?range=30d")
        assert "Acme Vision" in usage
        assert "Allowance · team" in usage
        assert re.search(r"credits in [1-9]\d+ records", re.sub(r"<[^>]+>", "", usage))
        assert "0 of 5,000 used" in usage, "credits bought at the sandbox's checkout"
        dana = Person(demo.url)
        dana.send("/login", email="dana@demo.example", password=people.PASSWORD)
        assert "of $20.00 agreed" in dana.read("/usage")
        olga = Person(demo.url)
        olga.send("/login", email=people.OPERATOR, password=people.PASSWORD)
        assert "product=spillway" in olga.read("/admin/catalog")
        second = subprocess.run(
            [sys.executable, "-m", "demo", "--folder", str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (second.returncode, second.stderr) == (1, f"A demo is running already in {folder}.\n")
        assert demo.interrupt() == 0
        assert demo.out.endswith("Stopped.\n")
    assert not is_open(demo.port)
    assert not is_open(demo.sandbox_port)
    with running(folder, f"{people.CUSTOMERS[0].name}:") as again:
        assert "$49.00" in page(f"{again.url}/pricing")
        assert again.interrupt() == 0, "also in the midst of filling it"


def test_it_takes_another_port_where_one_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert processes.free_port(port) != port


def test_it_empties_no_folder_but_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--folder", str(tmp_path / "mine")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "is no demo's" in done.stderr
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_nothing_of_an_installation_reaches_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = {
        "STRIPE_SECRET_KEY": "sk_live_real",
        "DATABASE_URL": "postgresql://real/real",
        "MAIL_URL_FILE": "/real/mail",
        "SECRET_KEY": "real",
        "PUBLIC_URL": "https://real.example",
    }
    for name, value in real.items():
        monkeypatch.setenv(name, value)
    environ = processes.environment(tmp_path, 1, "http://127.0.0.1:2")
    assert not set(real.values()) & set(environ.values())
    assert environ["STRIPE_SECRET_KEY"].startswith("sk_test_")
    assert environ["HOST"] == "127.0.0.1"
