"""What a user can do: one file per resource. Policy, quota, state check, one transaction, and the bell."""
