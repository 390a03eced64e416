"""Identities over the frames of a video: association of poses with tracks, gap filling, and smoothing, as stages."""
