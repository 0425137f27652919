"""`python -m sandbox`: serve it until it is interrupted."""

import argparse
import threading

from sandbox.server import start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="A stand-in for the part of Stripe in use.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=12111, help="port to listen on (default: %(default)s)")
    parser.add_argument("--address", help="what browsers call it, if not http://HOST:PORT")
    parser.add_argument("--clock-file", help="take the time from this file and write it there when it is moved")
    parser.add_argument("--webhook", help="send every event to this URL")
    parser.add_argument("--secret", help="and sign it with this secret (whsec_…)")
    wanted = parser.parse_args()
    running = start(
        wanted.clock_file,
        wanted.webhook,
        wanted.secret,
        host=wanted.host,
        port=wanted.port,
        address=wanted.address,
        ticking=True,
    )
    print(f"The sandbox is at {running.url}", flush=True)  # noqa: T201
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        running.stop()


if __name__ == "__main__":
    main()
