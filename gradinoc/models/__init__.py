"""Language models: found, checked, loaded; their blocks, adapters and chat templates."""
