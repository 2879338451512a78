"""C-DSVAE (Bai, Wang and Gomes, NeurIPS 2021): a static code per clip, a dynamic code per frame, contrastive terms."""
