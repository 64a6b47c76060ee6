"""The database: tables, queries, transactions, migrations. The only room that speaks SQL."""
