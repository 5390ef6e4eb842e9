"""detlite: modular object detection."""
