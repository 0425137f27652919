"""Work beside the usage that is measured: lots and holds that run out every second, and all jobs, without a pause.

Run as `python -m benchmarks.background PORT` with the server's environment and the token on the first line of stdin;
it prints `ready` once it works and ends when stdin does, telling how many jobs it ran.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from app import create_app
from jobs import registry

_ACCOUNTS = 20
_PERIOD = 1.0
_LIFE = 3.0
"""Seconds: of one turn, and of a lot, which must still be in the future when a slow server reads of it."""


class _Api:
    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def post(self, path: str, body: dict[str, Any]) -> None:
        self._connection.request("POST", f"/api/v1{path}", json.dumps(body), self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status not in (200, 201):
            raise SystemExit(f"{path} answers {response.status}: {answer[:400]!r}")


def _make_work(api: _Api, names: list[str]) -> None:
    for name in names:
        end = (datetime.now(UTC) + timedelta(seconds=_LIFE)).isoformat()
        api.post(f"/accounts/{name}/grants", {"credits": 3, "reason": "bench", "expires_at": end})
        api.post("/holds", {"account": name, "credits": 1, "ttl_seconds": int(_LIFE)})


def _wait_for_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


def main() -> None:
    """Until stdin ends."""
    api = _Api(int(sys.argv[1]), sys.stdin.readline().strip())
    app = create_app()
    names = [f"bench-jobs-{number}" for number in range(_ACCOUNTS)]
    for name in names:
        api.post("/accounts", {"external_id": name, "name": name})
    ended = threading.Event()
    threading.Thread(target=_wait_for_end, args=[ended], daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    ran = 0
    while not ended.is_set():
        began = time.monotonic()
        _make_work(api, names)
        ended.wait(max(0.0, began + _PERIOD - time.monotonic()))
        for name in registry.JOBS:
            run = registry.run(app, name)
            if run.outcome != "ok":
                raise SystemExit(f"the job {name} failed")
            ran += 1
    sys.stdout.write(f"{ran}\n")


if __name__ == "__main__":
    main()
