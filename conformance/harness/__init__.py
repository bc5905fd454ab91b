"""What the tests stand on: certificates, a pod's folder, the running server, its clients."""
