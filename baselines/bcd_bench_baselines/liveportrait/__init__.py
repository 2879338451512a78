"""LivePortrait (Guo et al., 2024): implicit keypoints, stitching and retargeting."""
