"""The rules of the Identity API, by Keystone's names: administrators for all, and users for themselves."""

from kilonova.base.policy import Default

ADMIN = "rule:admin_required"
SELF = "rule:admin_required or user_id:%(user_id)s"

_THINGS = ("domain", "project", "user", "group", "role", "service", "endpoint", "region")

DEFAULTS: tuple[Default, ...] = (
    Default("admin_required", "role:admin", "Who is an administrator."),
    *(
        Default(f"identity:{verb}_{thing}{'s' if verb == 'list' else ''}", ADMIN)
        for thing in _THINGS
        for verb in ("list", "get", "create", "update", "delete")
        if (verb, thing) not in {("get", "user"), ("get", "role"), ("list", "role")}
    ),
    Default("identity:get_user", SELF, "Users see themselves."),
    Default("identity:get_role", "@", "Everybody knows the roles."),
    Default("identity:list_roles", "@", "Everybody knows the roles."),
    Default("identity:list_user_projects", SELF, "Users see where they have a role."),
    Default("identity:change_password", SELF, "Users change their own password."),
    Default("identity:list_role_assignments", ADMIN),
    Default("identity:create_grant", ADMIN),
    Default("identity:check_grant", ADMIN),
    Default("identity:revoke_grant", ADMIN),
    Default("identity:list_grants", ADMIN),
    Default("identity:add_user_to_group", ADMIN),
    Default("identity:remove_user_from_group", ADMIN),
    Default("identity:list_users_in_group", ADMIN),
    Default("identity:check_user_in_group", SELF, "Users see which groups they are in."),
    Default("identity:list_groups_for_user", SELF, "Users see which groups they are in."),
    Default("service_role", "role:service", "Who acts for a service of the cloud."),
    Default(
        "identity:validate_token", "rule:admin_required or rule:service_role", "See what others' tokens stand for."
    ),
    Default("identity:revoke_token", ADMIN, "End others' tokens; everybody may end their own."),
    Default("identity:list_application_credentials", SELF),
    Default("identity:get_application_credential", SELF),
    Default("identity:create_application_credential", "user_id:%(user_id)s"),
    Default("identity:delete_application_credential", SELF),
)
