"""Predictions of MediaPipe Pose in annotated boxes of people, as COCO results, in an environment that has MediaPipe.

    python bench/mediapipe_people.py ANNOTATIONS.json IMAGES RESULTS.json

Its wheel contains the weights (``pip install mediapipe==0.10.14``). It needs numpy and OpenCV, and not kplab. Each person is cut
out with a margin of a quarter of the box, and enlarged to 384 px. Keypoints are matched by name; the neck is the middle of the
shoulders, and the top of the head lies beyond the nose. People that MediaPipe does not find have no prediction.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import mediapipe as mp
import numpy as np

LANDMARKS = {
    "nose": 0, "left_eye": 2, "right_eye": 5, "left_ear": 7, "right_ear": 8, "left_shoulder": 11, "right_shoulder": 12,
    "left_elbow": 13, "right_elbow": 14, "left_wrist": 15, "right_wrist": 16, "left_hip": 23, "right_hip": 24,
    "left_knee": 25, "right_knee": 26, "left_ankle": 27, "right_ankle": 28,
}  # fmt: skip
SIDE = 384


def pose_in(image: np.ndarray, box: list[float], model: Any) -> dict[str, np.ndarray] | None:
    """Name to (x, y, visibility), pixels of the image; None if no pose is found in the box (x, y, width, height)."""
    x, y, w, h = box
    half = 0.5 * 1.25 * max(w, h)
    scale = SIDE / (2 * half)
    corner = np.array([x + w / 2 - half, y + h / 2 - half])
    matrix = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
    crop = cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    found = model.process(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB)).pose_landmarks
    if found is None:
        return None
    points = np.array([[p.x * SIDE, p.y * SIDE, p.visibility] for p in found.landmark])
    points[:, :2] = points[:, :2] / scale + corner
    named = {name: points[k] for name, k in LANDMARKS.items()}
    named["neck"] = (named["left_shoulder"] + named["right_shoulder"]) / 2
    named["head_top"] = named["nose"] + 0.6 * (named["nose"] - named["neck"])
    return named


def main(annotations: Path, images: Path, results: Path) -> None:
    """Predict every annotated person."""
    content = json.loads(annotations.read_text())
    names = content["categories"][0]["keypoints"]
    files = {image["id"]: image["file_name"] for image in content["images"]}
    people = [a for a in content["annotations"] if not a.get("iscrowd") and any(a.get("keypoints", []))]
    rows = []
    with mp.solutions.pose.Pose(static_image_mode=True, model_complexity=1, min_detection_confidence=0.3) as model:
        for person in people:
            image = cv2.imread(str(images / files[person["image_id"]]))
            if image is None:
                sys.exit(f"{images / files[person['image_id']]}: can't be read")
            found = pose_in(image, person["bbox"], model)
            if found is not None:
                triples = [[float(v) for v in found[name]] for name in names]
                score = float(np.mean([t[2] for t in triples]))
                row = {"image_id": person["image_id"], "category_id": 1, "score": score}
                rows.append({**row, "keypoints": [v for t in triples for v in t], "bbox": person["bbox"]})
    results.write_text(json.dumps(rows))
    print(f"{len(rows)} of {len(people)} people predicted: {results}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*(Path(a) for a in sys.argv[1:]))
