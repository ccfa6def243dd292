"""The gRPC server of the Federation and Operator services: messages in, calls out."""
