"""3DDFA_V2: head pose and expression of a face by a network that is independent of our landmarks and MediaPipe's."""
