"""One small file for each published or requested system, all printed by `python main.py --list`.

`RECIPE` is a full `Config`, `PUBLISHED` the figure of the system's authors; the docstring says where it comes from,
what to make of the figure, and the command.
"""

import importlib
from pathlib import Path

from config import Config
from errors import UserError


def recipe_names() -> list[str]:
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__")


def load_recipe(name: str) -> Config:
    """The configuration of recipes/<name>.py."""
    return _module(name).RECIPE


def recipe_published(name: str) -> str:
    """The figure the system's authors give, "-" where there is none."""
    return _module(name).PUBLISHED


def _module(name: str):
    if name not in recipe_names():
        raise UserError(f"unknown recipe {name!r}; valid: {', '.join(recipe_names())}")
    return importlib.import_module(f"recipes.{name}")
