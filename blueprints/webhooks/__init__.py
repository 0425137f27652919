"""What other services tell us."""
