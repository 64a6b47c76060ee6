"""The rules of the Image API, by Glance's names."""

from kilonova.base.policy import Default

ADMIN = "rule:context_is_admin"
OWNER = "rule:context_is_admin or (role:member and project_id:%(owner)s)"

DEFAULTS: tuple[Default, ...] = (
    Default("context_is_admin", "role:admin", "Who is an administrator."),
    Default("get_images", "@", "List images that one can see."),
    Default("get_image", "@", "Show an image that one can see."),
    Default("download_image", "@", "Read an image's bytes."),
    Default("add_image", "rule:context_is_admin or role:member", "Make an image."),
    Default("upload_image", OWNER, "Write an image's bytes."),
    Default("modify_image", OWNER, "Change an image."),
    Default("delete_image", OWNER, "Delete an image."),
    Default("publicize_image", ADMIN, "Make an image public."),
    Default("communitize_image", OWNER, "Make an image a community image."),
    Default("deactivate", ADMIN, "Take an image out of use."),
    Default("reactivate", ADMIN, "Put an image into use again."),
    Default("add_member", OWNER, "Share an image."),
    Default("delete_member", OWNER, "Share an image no more."),
)
