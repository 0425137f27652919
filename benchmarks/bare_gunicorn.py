"""gunicorn.conf.py less its hooks, which prepare Spillway: the bare app is served under the very same settings.

Its workers are gunicorn's own with threads; ours (`web_worker`) serve short requests side by side in one thread.
"""

from __future__ import annotations

import runpy
from pathlib import Path

_real = runpy.run_path(str(Path(__file__).parent.parent / "gunicorn.conf.py"))
globals().update({name: value for name, value in _real.items() if not callable(value) and not name.startswith("_")})
worker_class = "gthread"
