"""The schema, revision by revision; ``Database.migrate`` applies them."""
