"""What runs inside a session pod: supervisor, template and the one-request loop of a session."""
