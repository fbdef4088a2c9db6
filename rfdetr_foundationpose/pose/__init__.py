"""FoundationPose: register once, track every frame (Wen et al., CVPR 2024)."""
