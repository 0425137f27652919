"""What an account pays for regularly."""
