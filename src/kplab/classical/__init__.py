"""Classical methods: interest-point detectors and descriptors, image changes to test them with, and exemplar-based pose estimation."""
