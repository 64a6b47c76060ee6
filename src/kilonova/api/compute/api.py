"""The Compute API itself: where it lives, which microversions it speaks, and its form of errors."""

from kilonova.api.http.errors import NOVA_ERRORS
from kilonova.api.http.routing import Api

api = Api(
    "compute",
    root="/compute/v2.1",
    errors=NOVA_ERRORS,
    min_version="2.1",
    max_version="2.96",
)
"""2.96 is the newest microversion whose every change to the resources here is carried."""
