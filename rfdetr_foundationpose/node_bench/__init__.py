"""``bench node``: a camera, the node and its listeners as processes over DDS, and where each millisecond goes between them."""
