"""TrainConfig -> Run: pictures, the small VQ-VAE, the loop, and what it leaves behind."""
