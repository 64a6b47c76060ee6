"""The Image API itself: where it lives, and its form of errors. It has no microversions."""

from kilonova.api.http.errors import GLANCE_ERRORS
from kilonova.api.http.routing import Api

api = Api("image", root="/image/v2", errors=GLANCE_ERRORS)
