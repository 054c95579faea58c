"""Files that a serving stack runs without rankopt: ONNX models, AOTInductor packages, torch.export programs."""
