"""Configuration: schema, composition, validation, instantiation."""
