"""From images to poses: loading a trained model, streaming over images, and assembling views into images."""
