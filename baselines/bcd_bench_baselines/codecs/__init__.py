"""Video codecs: x264, x265 and SVT-AV1 at their lowest rates, through PyAV."""
