"""`stage=review`: people decide on suggested labels or spans."""
