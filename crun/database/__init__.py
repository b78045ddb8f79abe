"""The database roles of the processes: who may do what with which table, and how that gets into PostgreSQL."""
