"""The customer portal: pages of one organization, for people."""
