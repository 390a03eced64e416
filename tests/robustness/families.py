"""A tiny training of every family, as overrides of the training of tests/tasks/conftest.py."""

from __future__ import annotations

#: A transformer of one layer that drops at random.
TRANSFORMER = [
    "neck.levels=[16]", "head.width=32", "head.heads=2", "head.encoder_layers=1", "head.decoder_layers=1",
    "head.feedforward=32", "head.dropout=0.2",
]  # fmt: skip
CASCADE = ["model=cascade", "detector.size=[64,64]", "model.crop=[64,64]"]
RCNN = [
    "head=rcnn", "neck.levels=[4,8]", "head.anchor_sizes=[[16],[32]]", "head.rpn_before=[50,25]", "head.rpn_after=[20,10]",
    "head.samples=8", "head.box_width=16", "head.keypoint_layers=1", "head.keypoint_width=16",
]  # fmt: skip

#: The dots have an edge less than a tree of all keypoints needs.
PAF_EDGES = "head.limbs=[[red,left_green],[red,right_blue]]"

#: Family to overrides. All are augmented and averaged, and validated in each epoch.
FAMILIES = {
    "heatmap": ["head=heatmap"],
    "simcc": ["head=simcc", "neck.levels=[8]"],
    "rle": ["head=rle", "neck.levels=[32]"],
    "query": ["head=query", *TRANSFORMER],
    "query_set": ["head=query_set", *TRANSFORMER],
    "paf": ["head=paf", "head.layout=joint", "head.stages=[1,1]", "head.width=16", "neck.levels=[8]", PAF_EDGES],
    "centernet": ["head=centernet"],
    "yolo": ["head=yolo", "neck.levels=[8,16,32]"],
    "auxiliary": ["head=yolo", "neck.levels=[8,16,32]", "model.auxiliary={weight:0.5,sigma:1.0,snap:8}"],
    "rcnn": RCNN,
    "topdown": ["head=heatmap", *CASCADE],
    "poseted": ["head=query", *TRANSFORMER, *CASCADE],
}
COMMON = ["augment=strong", "ema=0.9", "flip_test=false"]
