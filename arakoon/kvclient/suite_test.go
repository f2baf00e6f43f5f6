package kvclient

import (
	"testing"

	"openvstorage/arakoon/kv"
	"openvstorage/arakoon/kv/kvtest"
)

// TestConformance: a client over a socket is as good as a member in the process.
func TestConformance(t *testing.T) {
	kvtest.Run(t, func(t *testing.T) kvtest.Store {
		return newClient(t, Options{}, newHost(t, 3, openNode(t), kv.Options{}))
	})
}

// TestConformanceWithoutSessions: but for retries nothing depends on sessions.
func TestConformanceWithoutSessions(t *testing.T) {
	kvtest.Run(t, func(t *testing.T) kvtest.Store {
		return newClient(t, Options{Sessions: -1, PageSize: 1 << 20}, newHost(t, 3, openNode(t), kv.Options{}))
	})
}
