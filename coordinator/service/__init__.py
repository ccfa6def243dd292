"""gRPC servers and interceptors: messages into calls on the registry."""
