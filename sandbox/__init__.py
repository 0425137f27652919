"""A stand-in for Stripe: the part of its REST API that Spillway uses, for trying, for tests and for rehearsals.

`python -m sandbox --port 12111` serves it; the real `stripe` package talks to it over HTTP. It knows nothing of
Spillway and Spillway knows only its address. What it imitates, and what it does not, stands in sandbox/README.md.
"""
