"""Objectives: one LightningModule a method, and the base class that trains it."""

from cxrssl.objectives.base import Objective
from cxrssl.objectives.dinov2 import DINOv2
from cxrssl.objectives.ijepa import IJEPA
from cxrssl.objectives.jepa import JEPA
from cxrssl.objectives.joint import Joint
from cxrssl.objectives.lejepa import LeJEPA
from cxrssl.objectives.mlvicx import MLVICX
from cxrssl.objectives.nonfinite import NonFiniteLossError
from cxrssl.objectives.recipe import Recipe
from cxrssl.objectives.recipe_module import RecipeModule
from cxrssl.objectives.sharding import FullySharded
from cxrssl.objectives.teacher import Teacher
from cxrssl.objectives.vicreg import VICReg
from cxrssl.objectives.world_model import WorldModel

__all__ = [
    "IJEPA",
    "JEPA",
    "MLVICX",
    "DINOv2",
    "FullySharded",
    "Joint",
    "LeJEPA",
    "NonFiniteLossError",
    "Objective",
    "Recipe",
    "RecipeModule",
    "Teacher",
    "VICReg",
    "WorldModel",
]
