"""HyperReenact (Bounareli et al., ICCV 2023): a hypernetwork that tunes a StyleGAN2 to one face in another's pose."""
