"""What the bytes of an image are called where they are kept: ``<image id>.<upload id>``.

Each upload has a name of its own, so that two of them never meet in one place, and whether a name is still
somebody's can be read off the database (`kilonova.store.queries.images.known_locations`).
"""


def key_of(image_id: str, upload_id: str) -> str:
    """The key of one upload's bytes."""
    return f"{image_id}.{upload_id}"
