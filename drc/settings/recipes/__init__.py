"""The papers' training settings, one YAML file per family of networks."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml

from drc.core.errors import UsageError, unknown_name

PAPER = "paper"
_SCALE = 4


def list_recipes() -> list[str]:
    """The names of the recipes, sorted."""
    return sorted(_recipes())


def settings_of(name: str, model: str | None, scale: int | None) -> dict[str, Any]:
    """The settings of a recipe, nested like `drc.settings.TrainRun`.

    Args:
        name: of a recipe, or `paper` for that of the network.
        model: registered name of the network.
        scale: HR side over LR side, 4 where nothing is said; the papers give HR patches.

    Raises:
        UsageError: no such recipe, or none for this network.
    """
    recipes = _recipes()
    if name == PAPER:
        owner = [key for key, recipe in recipes.items() if model in recipe["networks"]]
        if not owner:
            raise UsageError(
                f"no paper's recipe is known for {model or 'this network'}; choose one of "
                f"{', '.join(list_recipes())}, or leave --recipe out"
            )
        name = owner[0]
    if name not in recipes:
        raise UsageError(unknown_name("recipe", name, [*recipes, PAPER]))
    recipe = recipes[name]
    train = {**recipe["train"], "patch": recipe["hr_patch"] // (scale or _SCALE)}
    return {"data": dict(recipe.get("data", {})), "train": train}


@cache
def _recipes() -> dict[str, dict[str, Any]]:
    folder = resources.files("drc.settings.recipes")
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    return {
        file.name.removesuffix(".yaml"): yaml.safe_load(file.read_text("utf-8")) for file in files
    }
