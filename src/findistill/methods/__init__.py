"""One folder per method: its configuration, rules, steps, stage and report part."""
