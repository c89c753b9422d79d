"""One small file for each published or requested system: `RECIPE` is a full `Config`, the docstring says where
it comes from, the figure to expect and the command. `python main.py --list` prints them.
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


def recipe_summary(name: str) -> str:
    """First line of a recipe's docstring."""
    return _module(name).__doc__.strip().splitlines()[0]


def _module(name: str):
    if name not in recipe_names():
        raise UserError(f"unknown recipe {name!r}; valid: {', '.join(recipe_names())}")
    return importlib.import_module(f"recipes.{name}")
