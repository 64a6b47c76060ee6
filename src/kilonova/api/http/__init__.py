"""The one room that knows the web framework. Resources see `routing`, `schema`, `views` and `paging` alone."""
