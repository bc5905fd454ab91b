"""The test harness: certificates, the pod directory, the running server, and its clients."""
