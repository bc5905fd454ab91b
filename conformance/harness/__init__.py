"""The foundation of the tests: certificates, the pod directory, the running server, and its clients."""
