"""Settings: what can be set, where it came from, and the presets that ship with the package."""
