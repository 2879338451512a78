"""HyperReenact (Bounareli et al., ICCV 2023): a hypernetwork that adapts a StyleGAN2 to one face in another's pose."""
