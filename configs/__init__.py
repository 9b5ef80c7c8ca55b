"""One file per published result or product default: its ``get_config()`` returns a schema of `experiments`."""
