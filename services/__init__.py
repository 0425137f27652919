"""The domain: plain functions, and the only code that commits."""
