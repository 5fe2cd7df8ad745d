"""A conversation with a model: what was said, where it is kept, what commands mean, how answers come."""
