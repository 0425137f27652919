"""The sandbox as a WSGI app: the API, the pages that Stripe would host, and its own controls."""

import importlib
import pkgutil

from flask import Flask

from sandbox import api, pages, resources, steering
from sandbox.world import World


def create(world: World) -> Flask:
    for module in pkgutil.iter_modules(resources.__path__):  # each puts its calls into the table
        importlib.import_module(f"sandbox.resources.{module.name}")
    app = Flask("sandbox", static_url_path="/_sandbox/static")
    app.config["WORLD"] = world
    app.register_blueprint(api.blueprint)
    app.register_blueprint(steering.blueprint)
    pages.register(app)
    return app
