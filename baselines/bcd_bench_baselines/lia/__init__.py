"""LIA, the latent image animator (Wang et al., ICLR 2022)."""
