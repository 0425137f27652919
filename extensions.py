"""The extensions, unbound; `app.create_app` binds them. Imports nothing of ours but the declarative base."""

from __future__ import annotations

from flask_bootstrap import Bootstrap5
from flask_login import LoginManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect

from models.base import Base

# expire_on_commit is off because services return what they wrote after their transaction has ended.
db = SQLAlchemy(model_class=Base, session_options={"autoflush": False, "expire_on_commit": False})
migrate = Migrate()
login_manager = LoginManager()
csrf = CSRFProtect()
bootstrap = Bootstrap5()
