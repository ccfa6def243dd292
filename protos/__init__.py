"""The wire, versioned; generated stubs stand beside their .proto files."""
