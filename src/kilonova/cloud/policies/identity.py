"""The rules of the Identity API, by Keystone's names: administrators for all, readers of the system see all, and users
act for themselves."""

from kilonova.base.policy import Default

ADMIN = "rule:admin_required"
SEE = "rule:admin_required or rule:system_reader"
SELF = "rule:admin_required or user_id:%(user_id)s"
SEE_SELF = f"{SEE} or user_id:%(user_id)s"

_THINGS = ("domain", "project", "user", "group", "role", "service", "endpoint", "region")

DEFAULTS: tuple[Default, ...] = (
    Default("admin_required", "role:admin", "Who is an administrator."),
    Default("system_reader", "role:reader and system_scope:all", "Who may see the whole cloud, and change nothing."),
    Default("service_role", "role:service", "Who acts for a service of the cloud."),
    *(
        Default(f"identity:{verb}_{thing}{'s' if verb == 'list' else ''}", SEE if verb in ("list", "get") else ADMIN)
        for thing in _THINGS
        for verb in ("list", "get", "create", "update", "delete")
        if (verb, thing) not in {("get", "user"), ("get", "role"), ("list", "role")}
    ),
    Default("identity:get_user", SEE_SELF, "Users see themselves."),
    Default("identity:get_role", "@", "Everybody knows the roles."),
    Default("identity:list_roles", "@", "Everybody knows the roles."),
    Default("identity:list_user_projects", SEE_SELF, "Users see where they have a role."),
    Default("identity:change_password", SELF, "Users change their own password."),
    Default("identity:list_role_assignments", SEE),
    Default("identity:create_grant", ADMIN),
    Default("identity:check_grant", SEE),
    Default("identity:revoke_grant", ADMIN),
    Default("identity:list_grants", SEE),
    Default("identity:add_user_to_group", ADMIN),
    Default("identity:remove_user_from_group", ADMIN),
    Default("identity:list_users_in_group", SEE),
    Default("identity:check_user_in_group", SEE_SELF, "Users see which groups they are in."),
    Default("identity:list_groups_for_user", SEE_SELF, "Users see which groups they are in."),
    Default("identity:validate_token", f"{SEE} or rule:service_role", "See what others' tokens stand for."),
    Default("identity:revoke_token", ADMIN, "End others' tokens; everybody may end their own."),
    Default("identity:list_application_credentials", SEE_SELF),
    Default("identity:get_application_credential", SEE_SELF),
    Default("identity:create_application_credential", "user_id:%(user_id)s"),
    Default("identity:delete_application_credential", SELF),
)
