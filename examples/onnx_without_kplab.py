"""Keypoints of an image from a file of ``kplab export format=onnx``, by NumPy, ONNX Runtime and Pillow alone.

Usage: python onnx_without_kplab.py model.onnx image.jpg
It prints a line for each keypoint: instance, name, x and y as pixel indices, score.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model, image = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["kplab"])
if about["decode"] != "in the graph":
    sys.exit(f"{model}: {about['decode']}, which this script does not do")

pixels = np.asarray(ImageOps.exif_transpose(Image.open(image)).convert("RGB"))
height, width = pixels.shape[:2]
region = np.array([[0, 0, width, height]], dtype=np.float64)  # or a subject's box, enlarged by about["padding"]
names = [output.name for output in session.get_outputs()]
found = dict(zip(names, session.run(None, {"images": pixels[None], "regions": region}), strict=True))

for instance in np.flatnonzero(found["scores"][0] >= about["min_score"]):
    points, scores = found["keypoints"][0, instance], found["keypoint_scores"][0, instance]
    for name, (x, y), score in zip(about["skeleton"]["keypoints"], points, scores, strict=True):
        print(f"{instance},{name},{x:.3f},{y:.3f},{score:.4f}")
