"""Ids: their form, their order, and that two processes never hand out the same."""

from __future__ import annotations

import os
import re

import ids


def test_ids_have_their_form_and_rise_with_time() -> None:
    made = [ids.new("use") for _ in range(3000)]
    assert all(re.fullmatch(r"use_[0-9a-hjkmnp-tv-z]{23}", one, re.ASCII) for one in made)
    assert len(set(made)) == len(made)
    assert made == sorted(made)
    assert len({one[14:] for one in made}) == len(made)
    assert re.fullmatch(r"acc_[0-9a-hjkmnp-tv-z]{16}", ids.short("acc"), re.ASCII)
    assert re.fullmatch(r"[0-9a-f]{32}", ids.random_hex())


def test_a_forked_process_draws_its_own() -> None:
    ids.random_hex()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, ids.random_hex().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100).decode() != ids.random_hex()
    os.close(reader)
    os.close(writer)
