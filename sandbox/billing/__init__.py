"""The life of subscriptions and invoices: what happens when, and in which order."""
