"""What may be configured: schema, composition, validation, instantiation."""
