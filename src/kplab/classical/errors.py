"""What a user of methods without learning can mend."""


class ClassicalError(ValueError):
    """What was asked of a method without learning can't be."""
