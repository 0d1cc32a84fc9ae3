"""The schema in SQL: migrations, views and audit queries. Installed as `dhcp_cmd.schema`."""
