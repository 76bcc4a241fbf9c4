"""The database: accounts, failed deliveries, migrations."""
