"""One folder a method: configuration, rules, steps, stage and report part together."""
