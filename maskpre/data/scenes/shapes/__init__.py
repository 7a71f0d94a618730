"""The five families of surfaces that rays can meet."""

from maskpre.data.scenes.shapes.base import Shape
from maskpre.data.scenes.shapes.box import Box
from maskpre.data.scenes.shapes.cone import Cone
from maskpre.data.scenes.shapes.cylinder import Cylinder
from maskpre.data.scenes.shapes.sphere import Sphere
from maskpre.data.scenes.shapes.torus import Torus

__all__ = ["Box", "Cone", "Cylinder", "Shape", "Sphere", "Torus"]
