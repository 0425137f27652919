"""`make demo`: the app and the sandbox side by side, with a catalog, people and a month of work, on this machine alone.

It uses what everybody can use (commands, pages, the API, the sandbox's controls) and never touches an installation's
data or a Stripe account.
"""
