"""ONNX files and TensorRT engines of the networks: written, checked, built, kept, and run."""
