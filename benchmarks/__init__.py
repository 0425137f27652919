"""`make bench`: the real server on fresh durable databases, beside a bare endpoint and raw SQL, as ratios."""
