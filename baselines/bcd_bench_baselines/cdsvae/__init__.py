"""C-DSVAE (Bai, Wang and Gomes, NeurIPS 2021): one static code a clip, one dynamic code a frame, contrastive terms."""
