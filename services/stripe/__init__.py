"""Stripe: the catalog's mirror, customers, buying, subscriptions, and the inbox of webhook events.

`gateway` is the only module that imports the `stripe` package. The other services know nothing of this package.
"""
