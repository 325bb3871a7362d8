"""The web viewer's page, configuration and static files as the node serves them."""
