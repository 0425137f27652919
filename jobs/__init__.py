"""Work that time brings: each job is one idempotent service call, so a second copy is harmless."""
