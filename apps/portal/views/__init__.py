"""Views of the portal, a module a subject. They read, choose a template and answer; rules live below them."""
