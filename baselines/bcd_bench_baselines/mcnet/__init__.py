"""MCNET: an implicit identity representation conditioned memory compensation network (Hong and Xu, ICCV 2023)."""
