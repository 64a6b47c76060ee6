"""Every route of the Image API, registered by importing the modules that hold them."""

from kilonova.api.image import data, images, info, members, schemas
from kilonova.api.image.api import api

__all__ = ["api", "data", "images", "info", "members", "schemas"]
