"""What goes wrong between a config and a network."""


class ModelError(ValueError):
    """A network can't be built, loaded or fed as asked; the message says what to change."""
