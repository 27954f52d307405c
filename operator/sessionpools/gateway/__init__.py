"""Where callers connect: HAProxy, which gives each call a free session or queues it, and the agent behind it."""
