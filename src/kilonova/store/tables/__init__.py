"""Every table, in two schemas: `GLOBAL` (one per cloud) and `CELL` (one per cell)."""
