"""The catalog on PostgreSQL 15 to 18 through psycopg 3: one module per subject of `node.ports`."""
