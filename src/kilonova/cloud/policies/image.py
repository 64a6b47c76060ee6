"""The rules of the Image API: Glance's names and its current defaults, so that a policy file written for it fits.

A rule is checked on a target: the image's ``project_id`` (and ``owner``, which is the same), its ``visibility``, and
``member_id``, which is the caller's project if the image is shared with it. Rules whose feature does not exist
here yet stand in the table already, so that an operator's file that names them means the same once it does.
"""

from kilonova.base.policy import Default

ADMIN = "rule:context_is_admin"
MEMBER = "rule:context_is_admin or (role:member and project_id:%(project_id)s)"
READER = "rule:context_is_admin or (role:reader and project_id:%(project_id)s)"
_VISIBLE = (
    "project_id:%(project_id)s or project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s"
    " or 'shared':%(visibility)s"
)
CAN_SEE = f"rule:context_is_admin or (role:reader and ({_VISIBLE}))"
CAN_READ = f"rule:context_is_admin or (role:member and ({_VISIBLE}))"
OWN_OR_MEMBER = "rule:context_is_admin or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s))"
THE_MEMBER = "rule:context_is_admin or (role:member and project_id:%(member_id)s)"
OWN_NEW = "rule:context_is_admin or (role:member and project_id:%(project_id)s and project_id:%(owner)s)"

# One line a rule: name, check, what it lets one do.
_RULES: tuple[tuple[str, str, str], ...] = (
    ("add_image", OWN_NEW, "Create an image, for one's own project."),
    ("get_image", CAN_SEE, "Show an image that one can see."),
    ("get_images", READER, "List images."),
    ("modify_image", MEMBER, "Change an image, its tags and its properties."),
    ("delete_image", MEMBER, "Delete an image."),
    ("publicize_image", ADMIN, "Make an image public."),
    ("communitize_image", MEMBER, "Make an image a community image."),
    ("upload_image", MEMBER, "Give an image its bytes."),
    ("download_image", CAN_READ, "Read an image's bytes."),
    ("deactivate", MEMBER, "Deactivate an image: its bytes can no longer be read."),
    ("reactivate", MEMBER, "Take a deactivation back."),
    ("get_member", OWN_OR_MEMBER, "Show a project that an image is shared with."),
    ("get_members", OWN_OR_MEMBER, "List the projects that an image is shared with."),
    ("add_member", MEMBER, "Share an image with a project."),
    ("modify_member", THE_MEMBER, "Accept or reject an image that is shared with one's project."),
    ("delete_member", MEMBER, "Share an image with a project no longer."),
    ("stores_info_detail", ADMIN, "See the properties of the stores of bytes."),
    ("copy_image", ADMIN, "Copy an image's bytes to another store."),
    ("delete_image_location", ADMIN, "Remove a location of an image's bytes."),
    ("get_image_location", READER, "See the locations of an image's bytes."),
    ("set_image_location", MEMBER, "Add a location of an image's bytes."),
    ("manage_image_cache", ADMIN, "Manage the cache of the Image API."),
    ("cache_image", ADMIN, "Put an image into the cache of the Image API."),
    ("cache_list", ADMIN, "List the cache of the Image API."),
    ("cache_delete", ADMIN, "Remove from the cache of the Image API."),
    ("get_task", "rule:default", "Show a task."),
    ("get_tasks", "rule:default", "List tasks."),
    ("add_task", "rule:default", "Create a task."),
    ("modify_task", "rule:default", "Change a task."),
    ("tasks_api_access", ADMIN, "Use the Task API."),
)

DEFAULTS: tuple[Default, ...] = (
    Default("default", "", "What has no rule of its own."),
    Default("context_is_admin", "role:admin", "Who is an administrator."),
    *(Default(name, check, description) for name, check, description in _RULES),
)
"""All rules of the Image API."""
