"""Image sources: images by index, whatever they are stored in; see ``structures.image_source``."""
