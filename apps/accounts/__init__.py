"""People and organizations: users, memberships, projects, roles."""
