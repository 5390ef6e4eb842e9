"""Services that know nothing of detection: files, logs, processes."""
